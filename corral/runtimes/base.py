"""The Protocol of a runtime on the controller."""

from __future__ import annotations

from typing import Protocol

from corral.plan.runtime import RuntimePlan
from corral.schema import Frozen


class Sandbox(Frozen):
    """What units of a runtime allow beyond the common sandbox.

    + kill_mode: KillMode= of systemd.kill(5); + namespaces: RestrictNamespaces=
    + system_calls: allowed beside the common ones; + devices: nodes that it opens
    """

    kill_mode: str = ""
    namespaces: str = "yes"
    system_calls: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class Start(Frozen):
    """One start of a server.

    + unit: its name; + image: on the host, or None; + models: folder of all weights
    + program, unpacks: the container program, and whether it unpacks images
    + gpus: whether it uses GPUs; + variables: of its environment
    + reads, writes: folders and files of the host that it needs beside its weights
    """

    unit: str
    image: str | None
    models: str
    program: str = "apptainer"
    unpacks: bool = False
    gpus: bool = False
    variables: dict[str, str] = {}
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


class Runtime(Protocol):
    """One way to start releases; ``packages``: of the distribution that a host needs for it."""

    kind: str
    packages: tuple[str, ...]

    def weights(self, path: str, models: str) -> str:
        """The path at which the server finds a file below ``models``."""

    def sandbox(self, *, unpacks: bool) -> Sandbox:
        """See Sandbox; ``unpacks``: see Start."""

    def plan(self, start: Start) -> RuntimePlan:
        """What precedes the server's own command line, and what it stands on."""
