"""Keys that this host has: of its instances, and of its gateway for clients and servers.

Their names are those of the controller's store: corral/store/api_keys.py and gateway_keys.py.
"""

import os
from pathlib import Path

from corral_host.system.commands import HostError, show

CREDENTIAL = "api-keys"
CLIENTS, UPSTREAM, METRICS = "clients-", "upstream", "metrics"
UPSTREAM_KEYS = f"{UPSTREAM}-"


def held(asked):
    """Names alone. ``asked``: instances (name, key_path, unit, unit_path), gateway (a folder)."""
    names = [one["name"] for one in asked["instances"] if has_keys(one)]
    return {"names": [*names, *gateway_keys(asked["gateway"])]}


def texts(asked):
    """Name -> text of the keys, for a controller that lost them; a secret, on standard output."""
    own = {one["name"]: text_of(one) for one in asked["instances"]}
    found = {name: text for name, text in own.items() if text is not None}
    return {"instances": found, "gateway": gateway_keys(asked["gateway"])}


def has_keys(instance):
    """Whether it is here at all: then it has clients with keys, wherever these are by now."""
    return any(os.path.lexists(instance[path]) for path in ("key_path", "unit_path"))


def text_of(instance):
    """What its next start reads, not what waits for an activation (staged_keys.py).

    Where that file is gone, what its server was started with.
    """
    return read(instance["key_path"]) or loaded(instance)


def loaded(instance):
    """The keys that a running server read when it started; None where none runs."""
    pid = show(instance["unit"], "MainPID")["MainPID"]
    return read(f"/proc/{pid}/root/run/credentials/{instance['unit']}/{CREDENTIAL}")


def gateway_keys(folder):
    """Of the installed generation: what clients show, what metrics need, what servers are shown."""
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
    """Of lines of an alias and its key."""
    pairs = [line.split() for line in text.splitlines()]
    return {f"{UPSTREAM_KEYS}{pool}": f"{key}\n" for pool, key in pairs}


def read(path):
    try:
        return Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    except UnicodeDecodeError as fault:
        raise HostError(f"{path} is not text", "look at it on the host") from fault
