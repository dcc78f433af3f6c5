"""Monitoring of a host as planned: packages, files and units."""

from __future__ import annotations

from corral.schema import Frozen


class MonitoringPlan(Frozen):
    """What makes a host tell a Prometheus of itself.

    + address, port: of node_exporter; + textfile: the file that it adds to its own figures
    + files: path -> text; no secrets
    + units: enabled and started once the files are there and the packages are installed
    """

    address: str
    port: int
    textfile: str
    packages: tuple[str, ...]
    files: dict[str, str]
    units: tuple[str, ...]
