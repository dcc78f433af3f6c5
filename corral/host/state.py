"""The state of a host, from the helper's ``state`` (files/corral_host/observe/state.py)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from corral.schema import Frozen


class Filesystem(Frozen):
    """The file system of a folder: device number and free space."""

    device: int
    free_bytes: int


class ModelsRoot(Frozen):
    """The folder of all weights; ``problem``: why it cannot be used, or empty.

    + marked: its disk is marked, so that the host notices when it is missing, or cannot be marked
    + unwanted_bytes: partial downloads of shards that are no longer planned, removed first
    + prunable_bytes: weights that nobody needs
    """

    problem: str = ""
    next_step: str = ""
    marked: bool = False
    unwanted_bytes: int = 0
    prunable_bytes: int = 0


class ShardState(Frozen):
    """A shard on the host; ``staged_bytes``: downloaded so far.

    + here: its bytes, or a file of its size, are elsewhere on the host and can be linked
    """

    proved: bool
    staged_bytes: int
    here: bool = False


class InstanceState(Frozen):
    """An instance on the host; ``serves``: the planned generation runs, proved and unchanged.

    + key_digest: of its key file (corral.plan.key_digest)
    + has_keys: its key file exists, valid or not
    + differs: why it does not serve, for display; empty where it serves
    + replaced: settings, weights and placement of the installed generation, parts of its plan;
      empty where the planned one is installed, or the host has no plan of it
    """

    active: str
    sub: str
    pid: int
    restarts: int
    since: str
    installed_generation: str | None
    proved_generation: str | None
    key_digest: str | None
    has_keys: bool = False
    staged: bool
    serves: bool
    differs: tuple[str, ...] = ()
    replaced: dict[str, Any] = {}


class Unplanned(Frozen):
    """An instance on the host that its plan does not have."""

    runs: bool
    at_boot: bool

    @property
    def description(self) -> str:
        """What it does, for display."""
        now = "it runs" if self.runs else "it does not run"
        return f"{now}, and {'starts' if self.at_boot else 'does not start'} at boot"


class Listener(Frozen):
    """The process that listens on a TCP port."""

    pid: int
    program: str
    unit: str


class Gpu(Frozen):
    """A GPU as nvidia-smi lists it; None for values that it does not report.

    + pci: as in sysfs, such as 0000:3b:00.0; + numa_node: None where there is none
    + ecc_uncorrected: errors since the driver was loaded; + problem: such as [GPU requires reset]
    """

    index: int
    name: str | None
    uuid: str | None
    pci: str | None
    driver_version: str | None
    persistence: bool
    memory_total_mib: int | None
    memory_free_mib: int | None
    compute_capability: str | None
    ecc_uncorrected: int | None
    compute_mode: str | None = None
    mig_mode: str | None = None
    numa_node: int | None = None
    problem: str = ""


class GpuProcess(Frozen):
    """A process that holds memory of a GPU; ``gpu``: UUID."""

    gpu: str
    pid: int
    program: str
    unit: str
    used_mib: int | None


class Xid(Frozen):
    """An error of a GPU in the kernel log of this boot; ``pci`` as in ``Gpu``."""

    pci: str
    code: int
    time_seconds: float


class Package(Frozen):
    """An installed package; ``held``: apt does not upgrade it."""

    version: str
    held: bool


class Driver(Frozen):
    """The NVIDIA driver; its loaded module, libraries and packages must have one version."""

    module_version: str | None = None
    open_module: bool = False
    library_version: str | None = None
    packages: dict[str, Package] = {}


class Toolkit(Frozen):
    """A CUDA toolkit: path of nvcc, its release such as 12.8, and whether builds use it."""

    path: str
    version: str | None
    used: bool


class Memory(Frozen):
    """Main memory of the host."""

    total_mib: int = 0
    available_mib: int = 0
    swap_total_mib: int = 0
    swap_free_mib: int = 0
    huge_pages: int = 0
    huge_pages_free: int = 0
    huge_page_kib: int = 0


class HostSource(Frozen):
    """A package repository that the host is configured with.

    + signed_by: as its file has it: a keyring, or a key over several lines; empty for apt's own
    """

    uri: str = Field(pattern=r"^\S+$")
    suite: str = Field(pattern=r"^\S+$")
    components: tuple[str, ...] = ()
    signed_by: str = Field(default="", pattern=r"^[^\n]*(\n[ \t][^\n]*)*$")
    trusted: bool = False


SmiFailure = Literal["", "absent", "no-driver", "no-devices", "mismatch", "lost", "other"]


class Processors(Frozen):
    """Threads of the hardware, and cores that have them; 0 where an earlier helper was asked."""

    threads: int = 0
    cores: int = 0


class GpuHost(Frozen):
    """GPUs, drivers and memory of a host (files/corral_host/nvidia/gpu.py).

    + failure: kind of failure of nvidia-smi; + problem: its message
    + lost, pci_gpus: PCI addresses; + xids_unreadable: why the kernel log is unreadable, or empty
    + persistenced: state of the service, or absent; + files: path -> sha256 of Corral's files
    """

    gpus: tuple[Gpu, ...] = ()
    failure: SmiFailure = "absent"
    problem: str = ""
    lost: tuple[str, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    pci_gpus: tuple[str, ...] = ()
    driver: Driver = Driver()
    toolkits: tuple[Toolkit, ...] = ()
    xids: tuple[Xid, ...] = ()
    xids_unreadable: str = ""
    numa_nodes: int = 1
    processors: Processors = Processors()
    memory: Memory = Memory()
    uvm_device: bool = False
    uvm_at_boot: bool = False
    persistenced: str = "absent"
    persistenced_at_boot: bool = False
    files: dict[str, str] = {}
    apt_sources: tuple[HostSource, ...] = ()


class GatewayState(Frozen):
    """Generations of a gateway: the one installed completely and privately, and the running one.

    + keys: names of its keys, as in the store
    + upstream: pool -> digest of the key that it sends to its servers (corral.plan.key_digest)
    """

    installed: str | None = None
    running: str | None = None
    keys: tuple[str, ...] = ()
    upstream: dict[str, str] = {}


class ProgramState(Frozen):
    """A package that is not installed in its pinned version.

    + installed: another version, or None; + offered: versions of the host's package sources
    """

    installed: str | None = None
    offered: tuple[str, ...] = ()


class MonitoringState(Frozen):
    """What differs from the planned monitoring, for display; ``missing_packages`` of it.

    + programs: pinned package -> what is there instead
    + secrets: path -> sha256 of a planned secret; None where it is missing or not private
    """

    differs: tuple[str, ...] = ()
    missing_packages: tuple[str, ...] = ()
    programs: dict[str, ProgramState] = {}
    secrets: dict[str, str | None] = {}


class ContainerProgram(Frozen):
    """apptainer or singularity; ``setuid``: whether its starter has that bit."""

    path: str
    kind: Literal["apptainer", "singularity"]
    version: str
    setuid: bool


class Containers(Frozen):
    """What a host can do with images (files/corral_host/runtimes/containers.py).

    + programs: by the name or path that was looked for; absent ones are missing
    + user_namespaces: the setting that forbids them, or empty
    + fuse, squashfuse: whether /dev/fuse and the program are there
    """

    programs: dict[str, ContainerProgram] = {}
    user_namespaces: str = ""
    fuse: bool = False
    squashfuse: bool = False


class RolloutHere(Frozen):
    """A rollout that holds a host's lock; empty values where they are unknown."""

    by: str
    since: str
    rollout: str


class HostState(Frozen):
    """The state of one host. Defaults are those of a host without python3.

    + closed: paths that servers need and only root can read
    + containers: None for a plan without images
    + not_root: why the login did not become root, so that the rest is unknown; or empty
    + site_images: key of a missing release -> bytes of the site's own file on the host
    + watched: the service that watches servers is as planned
    + kernel_recorded: the kernel's command line is the one that the last deploy saw
    + rollout: the rollout that holds the host's lock
    """

    os_id: str = ""
    os_version: str = ""
    architecture: str = ""
    cpu_flags: tuple[str, ...] = ()
    time_seconds: float = 0
    systemd: bool = False
    missing_packages: tuple[str, ...] = ()
    missing_commands: tuple[str, ...] = ()
    engine_config_files: tuple[str, ...] = ()
    helper_sha256: str | None = None
    filesystems: dict[str, Filesystem] = {}
    models_root: ModelsRoot = ModelsRoot()
    releases: dict[str, bool] = {}
    unused_releases: tuple[str, ...] = ()
    site_images: dict[str, int] = {}
    closed: tuple[str, ...] = ()
    shards: dict[str, ShardState] = {}
    instances: dict[str, InstanceState] = {}
    unplanned: dict[str, Unplanned] = {}
    listeners: dict[int, Listener] = {}
    ports_reserved: bool = False
    watched: bool = False
    kernel_recorded: bool = True
    gpu_host: GpuHost = GpuHost()
    gateway: GatewayState | None = None
    monitoring: MonitoringState = MonitoringState()
    containers: Containers | None = None
    not_root: str = ""
    rollout: RolloutHere | None = None

    @property
    def readable(self) -> bool:
        """Whether the host could run the helper."""
        return bool(self.os_id)
