"""Folders and files of Corral, on a host and on the controller."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from platformdirs.unix import Unix

from corral.schema import Frozen

_ODD = re.compile(r"[^A-Za-z0-9:_.]")


class HostPaths(Frozen):
    """Folders on a host; each is named here alone.

    + models_folder: of the inventory; see planning.host_paths
    """

    engines: str = "/opt/corral/engines"
    state: str = "/var/lib/corral"
    keys: str = "/etc/corral/keys"
    gateway: str = "/etc/corral/gateway"
    units: str = "/etc/systemd/system"
    helper: str = "/usr/local/lib/corral/corral_host.pyz"
    compiler_cache: str = "/var/cache/corral/ccache"
    sockets: str = "/run"
    models_folder: str | None = None

    @property
    def models(self) -> str:
        """Weights, under their repository's own names; the inventory may name another folder."""
        return self.models_folder or f"{self.state}/models"

    @property
    def monitoring_document(self) -> str:
        """What the timer of the monitoring reads: paths, no secrets."""
        return "/etc/corral/monitoring.json"

    @property
    def prometheus(self) -> str:
        """Configuration, targets and rules of Prometheus and Alertmanager, and their secrets."""
        return "/etc/corral/prometheus"

    @property
    def grafana(self) -> str:
        """Configuration and dashboards of Grafana, and its secrets."""
        return "/etc/corral/grafana"

    @property
    def grafana_secrets(self) -> str:
        """Folder of what systemd hands to Grafana alone."""
        return f"{self.grafana}/secrets"

    @property
    def archives(self) -> str:
        """Archives of releases in transfer, and the model of the smoke test."""
        return f"{self.state}/archives"

    @property
    def instances(self) -> str:
        """Generations of each instance."""
        return f"{self.state}/instances"

    def key_file(self, instance: str) -> str:
        """The API keys of an instance, readable by root alone."""
        return f"{self.keys}/{instance}"

    def prometheus_secrets(self, unit: str) -> str:
        """Folder of what systemd hands to one unit of the monitoring alone."""
        return f"{self.prometheus}/secrets/{unit}"

    def unit_file(self, instance: str) -> str:
        """The systemd unit file of an instance."""
        return f"{self.units}/{unit_name(instance)}"


def unit_name(instance: str) -> str:
    """As systemd knows an instance."""
    return f"corral-{instance}.service"


def mount_units(folder: str) -> tuple[str, ...]:
    """Names of the units of mounts at a folder and above it, whether or not there are any."""
    parts = folder.strip("/").split("/")
    return tuple(f"{'-'.join(_escaped(parts[: count + 1]))}.mount" for count in range(len(parts)))


def _escaped(parts: Sequence[str]) -> list[str]:
    """Parts of a path in the name of a unit (systemd.unit(5), "String Escaping")."""
    found = [_ODD.sub(lambda odd: f"\\x{ord(odd[0]):02x}", part) for part in parts]
    # A dot is plain, except where the name would begin with it.
    return [re.sub(r"^\.", r"\\x2e", found[0]), *found[1:]]


def credential_path(unit: str) -> str:
    """Where the process of a unit reads its API keys: LoadCredential= puts them there."""
    # The specifier %d, written out.
    return f"/run/credentials/{unit}/api-keys"


HOST_PATHS = HostPaths()

# The XDG Base Directory Specification 0.8 on every system, so that folders stay where they were.
_USER = Unix("corral")


def default_keys_folder() -> Path:
    """The API-key store on the controller; outside the repository."""
    return _existing(_USER.user_config_path / "keys", ".config/corral/keys")


def default_identity() -> Path:
    """The key of age that opens encrypted files of the key store."""
    return _USER.user_config_path / "age-identity.txt"


def default_archives_folder() -> Path:
    """Archives of engine releases on the controller; outside the repository."""
    return _existing(_USER.user_data_path / "engines", ".local/share/corral/engines")


def default_results_folder() -> Path:
    """Results of `corral bench`."""
    return _USER.user_data_path / "bench"


def default_tune_folder() -> Path:
    """Runs of `corral tune`."""
    return _USER.user_data_path / "tune"


def default_rollouts_folder() -> Path:
    """Journals of rollouts."""
    return _USER.user_state_path / "rollouts"


def default_keys_journal() -> Path:
    """Who changed which keys when, one JSON document a line, without keys."""
    return _USER.user_state_path / "keys.jsonl"


def default_bundles_folder() -> Path:
    """Which files of bundles were proved on this controller."""
    return _USER.user_state_path / "bundles"


def default_headers_folder() -> Path:
    """Cache of fetched headers of weights."""
    return _USER.user_cache_path / "headers"


def _existing(folder: Path, earlier: str) -> Path:
    """``folder``, or the folder of versions that ignored XDG variables where only that exists."""
    old = Path.home() / earlier
    if old == folder or folder.exists():
        return folder
    return old if old.exists() else folder
