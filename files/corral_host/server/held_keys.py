"""Keys on this host: of its instances, of its gateway for clients and servers, of its monitoring.

They have the names of the controller's store: corral/store/api_keys.py and gateway_keys.py.
"""

import os
from pathlib import Path

from corral_host.system.commands import HostError, show

CREDENTIAL = "api-keys"
CLIENTS, UPSTREAM, METRICS = "clients-", "upstream", "metrics"
UPSTREAM_KEYS = f"{UPSTREAM}-"


def held(asked):
    """Names of the keys that are here, without the keys.

    ``asked``: instances (name, key_path, unit, unit_path), gateway (a folder).
    """
    names = [one["name"] for one in asked["instances"] if has_keys(one)]
    return {"names": [*names, *gateway_keys(asked["gateway"])]}


def texts(asked):
    """Name -> text of the keys, for a controller that lost them; secret, to standard output.

    ``asked``: also monitoring, a name -> a folder.
    """
    own = {one["name"]: text_of(one) for one in asked["instances"]}
    found = {name: text for name, text in own.items() if text is not None}
    return {
        "instances": found,
        "gateway": gateway_keys(asked["gateway"]),
        "monitoring": {name: files_in(folder) for name, folder in asked["monitoring"].items()},
    }


def has_keys(instance):
    """Whether the instance is on this host: then clients have its keys, wherever the file is."""
    return any(os.path.lexists(instance[path]) for path in ("key_path", "unit_path"))


def text_of(instance):
    """The keys that its next start reads, not those staged for an activation (staged_keys.py).

    If that file is gone: the keys that its running server read.
    """
    return read(instance["key_path"]) or loaded(instance)


def loaded(instance):
    """The keys that a running server read when it started; None if no server runs."""
    pid = show(instance["unit"], "MainPID")["MainPID"]
    return read(f"/proc/{pid}/root/run/credentials/{instance['unit']}/{CREDENTIAL}")


def gateway_keys(folder):
    """Keys of the installed gateway: its clients', its metrics', and those it sends to servers."""
    current = Path(folder) / "current"
    found = {}
    for path in sorted(current.iterdir()) if current.is_dir() else ():
        if path.name.startswith(CLIENTS):
            found[f"gateway-{path.name[len(CLIENTS) :]}"] = path.read_text()
        elif path.name == METRICS:
            found["gateway_metrics"] = path.read_text()
        elif path.name == UPSTREAM:
            found.update(upstream_keys(path.read_text()))
    return found


def upstream_keys(text):
    """Name -> key, from lines of an alias and its key."""
    pairs = [line.split() for line in text.splitlines()]
    return {f"{UPSTREAM_KEYS}{pool}": f"{key}\n" for pool, key in pairs}


def files_in(folder):
    """Name of each file -> its text; none where there is no folder."""
    found = sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ()
    return {path.name: read(path) for path in found if path.is_file()}


def read(path):
    try:
        return Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    except UnicodeDecodeError as fault:
        raise HostError(f"{path} is not text", "look at it on the host") from fault
