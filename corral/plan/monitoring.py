"""Monitoring of a host as planned: packages, files and units."""

from __future__ import annotations

from corral.schema import Frozen


class MonitoringPlan(Frozen):
    """What makes a host tell a Prometheus of itself, and its own Prometheus.

    + address, port: of node_exporter; + textfile: the file that it adds to its own figures
    + files: path -> text; no secrets
    + secrets: path of a file for root alone -> ``HOST/NAME`` of the key store, whose secret it has
    + units: enabled and started once the files are there and the packages are installed
    + answers: unit -> URL that answers 200 while it is healthy
    + targets: URL of the targets of its Prometheus; "" without one
    """

    address: str
    port: int
    textfile: str
    packages: tuple[str, ...]
    files: dict[str, str]
    secrets: dict[str, str] = {}
    units: tuple[str, ...]
    answers: dict[str, str] = {}
    targets: str = ""
