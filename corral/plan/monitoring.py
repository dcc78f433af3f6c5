"""Monitoring of a host as planned: packages, files and units."""

from __future__ import annotations

from corral.schema import Frozen


class PinnedProgram(Frozen):
    """A package in a pinned version, as apt matches it.

    + catalog: file that pins it; + has_source: whether a repository is added for it
    + key_url, key_fingerprint: of that repository's key, where ``keyring`` is to have it
    """

    package: str
    version: str
    catalog: str
    has_source: bool
    key_url: str | None = None
    key_fingerprint: str | None = None
    keyring: str


class MonitoringPlan(Frozen):
    """What makes a host tell a Prometheus of itself, and its own Prometheus.

    + address, port: of node_exporter; + textfile: the file that it adds to its own figures
    + files: path -> text; no secrets
    + secrets: path of a file for root alone -> ``HOST/NAME`` of the key store, whose secret it has
    + units: enabled and started once the files are there and the packages are installed
    + answers: unit -> URL that answers 200 while it is healthy
    + closed: unit -> URL that refuses who has no login
    + programs: packages that no distribution has
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
    closed: dict[str, str] = {}
    targets: str = ""
    programs: tuple[PinnedProgram, ...] = ()
