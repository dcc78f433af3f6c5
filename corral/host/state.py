"""What the helper's ``state`` says about a host (files/corral_host/observe/state.py)."""

from __future__ import annotations

from typing import Literal

from corral.schema import Frozen


class Filesystem(Frozen):
    """Where a folder is, or will be: the device's number and what is free on it."""

    device: int
    free_bytes: int


class ModelsRoot(Frozen):
    """The folder of all weights; ``problem``: why none can be put there, or nothing.

    + marked: the host would miss it, or cannot mark it
    + unwanted_bytes: what arrived for shards that are not planned any more, and goes first
    """

    problem: str = ""
    next_step: str = ""
    marked: bool = False
    unwanted_bytes: int = 0


class ShardState(Frozen):
    """A shard on the host; ``staged_bytes`` of it have arrived so far."""

    proved: bool
    staged_bytes: int


class InstanceState(Frozen):
    """An instance on the host; ``serves``: the planned generation runs, proved and unchanged.

    + has_keys: it is there, whatever its key file is by now
    + differs: what keeps it from that, for people; empty where it serves
    """

    active: str
    sub: str
    pid: int
    restarts: int
    since: str
    installed_generation: str | None
    proved_generation: str | None
    key_sha256: str | None
    has_keys: bool = False
    staged: bool
    serves: bool
    differs: tuple[str, ...] = ()


class Listener(Frozen):
    """Who holds a TCP port."""

    pid: int
    program: str
    unit: str


class Gpu(Frozen):
    """A GPU as nvidia-smi lists it; None for what it does not have or does not answer.

    + pci: as sysfs writes it, such as 0000:3b:00.0; + numa_node: None where there is none
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
    numa_node: int | None = None
    problem: str = ""


class GpuProcess(Frozen):
    """A process that holds memory of a GPU, by the GPU's uuid."""

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
    """An installed package; ``held``: apt leaves it alone."""

    version: str
    held: bool


class Driver(Frozen):
    """Three places that must agree: the loaded module, the libraries, the packages."""

    module_version: str | None = None
    open_module: bool = False
    library_version: str | None = None
    packages: dict[str, Package] = {}


class Toolkit(Frozen):
    """A CUDA toolkit: its nvcc, and the release that it says, such as 12.8; builds use one."""

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


SmiFailure = Literal["", "absent", "no-driver", "no-devices", "mismatch", "lost", "other"]


class GpuHost(Frozen):
    """GPUs, drivers and memory of a host (files/corral_host/nvidia/gpu.py).

    + failure: what kind of thing is wrong with nvidia-smi, ``problem`` in its words
    + lost, pci_gpus: PCI addresses; + xids_unreadable: why the kernel log is, or empty
    + persistenced: the service's state, or absent; + files: sha256 of those that Corral writes
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
    memory: Memory = Memory()
    uvm_device: bool = False
    uvm_at_boot: bool = False
    persistenced: str = "absent"
    persistenced_at_boot: bool = False
    files: dict[str, str] = {}


class GatewayState(Frozen):
    """Generations of a gateway: the one that is installed whole and private, and what runs.

    + keys: names of those that it has, as the store calls them
    + upstream: pool -> sha256 of the key that its servers are shown
    """

    installed: str | None = None
    running: str | None = None
    keys: tuple[str, ...] = ()
    upstream: dict[str, str] = {}


class RolloutHere(Frozen):
    """A rollout that holds a host; empty where its holder could not say it."""

    by: str
    since: str
    rollout: str


class HostState(Frozen):
    """One host, in one document. Defaults are those of a host without python3.

    + closed: what servers need of a plan, and only root can read
    + not_root: why the login did not become root, who alone can tell the rest; or empty
    + rollout: who holds the host
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
    closed: tuple[str, ...] = ()
    shards: dict[str, ShardState] = {}
    instances: dict[str, InstanceState] = {}
    listeners: dict[int, Listener] = {}
    ports_reserved: bool = False
    gpu_host: GpuHost = GpuHost()
    gateway: GatewayState | None = None
    not_root: str = ""
    rollout: RolloutHere | None = None

    @property
    def readable(self) -> bool:
        """Whether the host could run the helper at all."""
        return bool(self.os_id)
