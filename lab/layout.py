"""Names, addresses and folders of a lab, all derived from the checkout's path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

# The next step if the disk is full while the lab writes a file.
ROOM = "free space there, then run it again"

HUB_PORT = 8080
GIT_PORT = 9418
MAX_HOSTS = 200
# The host that `corral lab up --gateway` adds.
GATEWAY = MAX_HOSTS

_NETWORKS = IPv4Network("10.64.0.0/10")
_STATE_PARENT = Path("/var/lib/corral-lab")
_FIRST_HOST_ADDRESS = 10


@dataclass(frozen=True)
class Layout:
    """The lab of one checkout. Hosts are counted from 1."""

    checkout: Path
    state_parent: Path
    cache: Path

    @classmethod
    def of(cls, checkout: Path) -> Layout:
        """The lab of the checkout at this path; the same path always gives the same lab."""
        return cls(
            checkout=checkout.resolve(),
            state_parent=_STATE_PARENT,
            cache=Path.home() / ".cache" / "corral-lab",
        )

    @property
    def lab_id(self) -> str:
        """Six hex digits, from the checkout's absolute path."""
        return hashlib.sha256(str(self.checkout).encode()).hexdigest()[:6]

    @property
    def bridge(self) -> str:
        """The bridge's name; 13 characters, Linux allows 15."""
        return f"corral-{self.lab_id}"

    @property
    def nft_table(self) -> str:
        return f"corral_lab_{self.lab_id}"

    @property
    def subnet(self) -> IPv4Network:
        """A /24 inside 10.64.0.0/10."""
        count = 2 ** (24 - _NETWORKS.prefixlen)
        index = int(self.lab_id, 16) % count
        return IPv4Network((int(_NETWORKS.network_address) + index * 256, 24))

    @property
    def controller_address(self) -> IPv4Address:
        return self.subnet[1]

    def address(self, n: int) -> IPv4Address:
        """Address of host n, 1 to `MAX_HOSTS`."""
        if not 1 <= n <= MAX_HOSTS:
            raise ValueError(f"host number {n} is not in 1..{MAX_HOSTS}")
        return self.subnet[_FIRST_HOST_ADDRESS + n]

    def host_name(self, n: int) -> str:
        return f"lab-{n}"

    def machine(self, n: int) -> str:
        """The nspawn machine's name; unique on the controller."""
        return f"{self.lab_id}-{n}"

    def veth(self, n: int) -> str:
        """The controller's end of the host's network cable, as nspawn names it."""
        return f"{self.veth_prefix}{n}"

    @property
    def veth_prefix(self) -> str:
        return f"vb-{self.lab_id}-"

    @property
    def machine_pattern(self) -> str:
        """Matches the machine names of this lab, as fnmatch does."""
        return f"{self.lab_id}-*"

    def cgroup(self, n: int) -> str:
        return f"corral-lab-{self.machine(n)}"

    @property
    def cgroup_pattern(self) -> str:
        return f"corral-lab-{self.machine_pattern}"

    @property
    def hub_url(self) -> str:
        return f"http://{self.controller_address}:{HUB_PORT}"

    @property
    def git_url(self) -> str:
        return f"git://{self.controller_address}/llama.cpp.git"

    @property
    def state(self) -> Path:
        return self.state_parent / self.lab_id

    @property
    def lock_file(self) -> Path:
        return self.state_parent / f"{self.lab_id}.lock"

    @property
    def record_file(self) -> Path:
        return self.state / "lab.json"

    @property
    def hosts(self) -> Path:
        return self.state / "hosts"

    def disk(self, n: int) -> Path:
        """Folder of host n's disk on the controller; it exists only if it is complete."""
        return self.hosts / self.host_name(n)

    @property
    def ssh(self) -> Path:
        return self.state / "ssh"

    @property
    def ssh_config(self) -> Path:
        return self.ssh / "config"

    @property
    def ssh_key(self) -> Path:
        return self.ssh / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.ssh / "known_hosts"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def hub(self) -> Path:
        return self.state / "hub"

    @property
    def keys(self) -> Path:
        """Api-key files that the lab's inventory names."""
        return self.state / "keys"

    @property
    def archives(self) -> Path:
        """The archive store that the lab's inventory names."""
        return self.state / "archives"

    @property
    def base_cache(self) -> Path:
        return self.cache / "base"

    @property
    def compiler_cache(self) -> Path:
        return self.cache / "ccache"

    @property
    def engine_source(self) -> Path:
        return self.cache / "engine-source"


def this_lab() -> Layout:
    """The lab of the checkout that holds this package."""
    return Layout.of(Path(__file__).resolve().parent.parent)
