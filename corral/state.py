"""What the helper's ``state`` says about a host (files/corral_host/state.py)."""

from __future__ import annotations

from corral.schema import Frozen


class Filesystem(Frozen):
    """Where a folder is, or will be: the device's number and what is free on it."""

    device: int
    free_bytes: int


class ShardState(Frozen):
    """A shard on the host; ``staged_bytes`` of it have arrived so far."""

    proved: bool
    staged_bytes: int


class InstanceState(Frozen):
    """An instance on the host; ``serves``: the planned generation runs, proved and unchanged."""

    active: str
    sub: str
    pid: int
    restarts: int
    since: str
    installed_generation: str | None
    proved_generation: str | None
    key_sha256: str | None
    staged: bool
    serves: bool


class Listener(Frozen):
    """Who holds a TCP port."""

    pid: int
    program: str
    unit: str


class Gpu(Frozen):
    """A GPU as nvidia-smi lists it."""

    index: int
    name: str
    memory_mib: int
    compute_capability: str


class HostState(Frozen):
    """One host, in one document. Defaults are those of a host without python3."""

    os_id: str = ""
    os_version: str = ""
    architecture: str = ""
    cpu_flags: tuple[str, ...] = ()
    time_seconds: float = 0
    systemd: bool = False
    missing_packages: tuple[str, ...] = ()
    missing_commands: tuple[str, ...] = ()
    engine_config_file: bool = False
    helper_sha256: str | None = None
    filesystems: dict[str, Filesystem] = {}
    releases: dict[str, bool] = {}
    shards: dict[str, ShardState] = {}
    instances: dict[str, InstanceState] = {}
    listeners: dict[int, Listener] = {}
    gpus: tuple[Gpu, ...] = ()
    gpus_problem: str = ""

    @property
    def readable(self) -> bool:
        """Whether the host could run the helper at all."""
        return bool(self.os_id)
