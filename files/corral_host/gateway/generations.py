"""Generations of a gateway on its host: write them, switch by one rename, check them."""

import contextlib
import grp
import hashlib
import json
import os
import re
import socket
import stat
import time
from pathlib import Path

from corral_host.gateway.socket import current_worker, running_generation, save
from corral_host.instance.unit_file import ENABLED, unit_file_state
from corral_host.server.held_keys import UPSTREAM_KEYS, gateway_keys
from corral_host.server.key_digest import key_digest
from corral_host.system.commands import HostError, linked, output, point, show, write_atomic

UNIT = "haproxy.service"
HAPROXY = "/usr/sbin/haproxy"
GROUP = "haproxy"
CONFIG, DROP_IN = "haproxy.cfg", "haproxy.service.conf"
START_SECONDS = 10
# A file beside the generations while the current one is not proved; it names the previous one.
UNPROVED = "unproved"


def listens(folder):
    """Addresses and ports of a generation's configuration."""
    text = (folder / CONFIG).read_text()
    return set(re.findall(r"^  bind \[?([0-9a-f.:]+?)\]?:(\d+)(?: |$)", text, re.MULTILINE))


def refuse_taken(places):
    """Raises HostError for a taken port. HAProxy would accept no connections while it retries."""
    for address, port in places:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address, int(port)))
            except OSError as error:
                raise HostError(
                    f"the gateway cannot listen on {address}:{port}: {error}"
                ) from error


def write(folder, files):
    """Write a generation; HAProxy may read it only once all its files are there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    grant_haproxy(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        write_atomic(folder / name, text, mode=0o600)
    for path in (*folder.iterdir(), folder):
        grant_haproxy(path)


def grant_haproxy(path):
    os.chown(path, -1, readers())
    path.chmod(mode_of(path))


def mode_of(path):
    """Mode for root, who writes, and HAProxy, which reads."""
    return 0o750 if path.is_dir() else 0o640


def readers():
    """The group of HAProxy alone, made by its package."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return os.getegid()


def switch(document, generation):
    root = Path(document["folder"])
    place = drop_in_path(document["units"])
    point(root / "current", generation)
    place.parent.mkdir(exist_ok=True)
    text = (root / generation / DROP_IN).read_text()
    # A reload is enough only if the master was started with this configuration and this drop-in: it
    # reads its old configuration again, and keeps the confinement it was started with.
    stays = runs_ours(root) and place.is_file() and place.read_text() == text
    write_atomic(place, text)
    output("systemctl", "daemon-reload")
    output("systemctl", "enable", "--quiet", UNIT)
    # The unit does this at each reload too; here it is for the new configuration.
    with contextlib.suppress(HostError):
        save((root / generation / CONFIG).read_text())
    _, before = current_worker()
    output("systemctl", "reload" if stays else "restart", UNIT)
    wait_until_up(generation, before)


def wait_until_up(generation, before):
    """Wait until another worker than ``before`` serves: the old one may have read other files."""
    deadline = time.monotonic() + START_SECONDS
    while (found := current_worker())[0] != generation or found[1] == before:
        if time.monotonic() > deadline:
            raise HostError(f"HAProxy does not start with generation {generation}")
        time.sleep(0.2)


def revert(document, old):
    """Revert to the previous generation; without one, stop HAProxy. Returns what happened."""
    log = "\n".join(log_tail())
    if old:
        try:
            switch(document, old)
        except HostError as fault:
            return f"{log}\nREVERT FAILED, the gateway may be down: {fault.what}"
        return f"{log}\nGeneration {old} serves again."
    output("systemctl", "stop", UNIT)
    drop_in_path(document["units"]).unlink()
    (Path(document["folder"]) / "current").unlink()
    output("systemctl", "daemon-reload")
    return log


def log_tail():
    """HAProxy's latest alerts and warnings, without the requests that the log has, too."""
    log = output("journalctl", "--unit", UNIT, "--lines", "500", "--output=cat", "--no-pager")
    return [line for line in log.splitlines() if line.startswith(("[ALERT]", "[WARNING]"))][-10:]


def runs_ours(root):
    pid = show(UNIT, "MainPID")["MainPID"]
    if pid == "0":
        return False
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return f"{root}/current/{CONFIG}" in arguments


def drop_in_path(units):
    return Path(units) / f"{UNIT}.d" / "corral.conf"


def current(root):
    """The generation that HAProxy starts with, or None."""
    return linked(root, "current")


def gateway_state(gateway, units, digest_key=None):
    """What is installed, and what runs. ``digest_key``: see server/key_digest.py.

    ``installed`` is None if the generation is not proved, not whole or not enabled at boot.
    """
    root = Path(gateway["folder"])
    found = current(root)
    proved = not (root / UNPROVED).exists()
    whole = proved and not wrong_files(root, units) and unit_file_state(UNIT) == ENABLED
    keys = gateway_keys(root)
    return {
        "installed": found if whole else None,
        "running": running_generation(),
        "keys": sorted(keys),
        "upstream": shown_keys(keys, digest_key) if digest_key else {},
    }


def shown_keys(keys, digest_key):
    """Pool -> digest of the key that the gateway sends to its servers."""
    shown = {name: text for name, text in keys.items() if name.startswith(UPSTREAM_KEYS)}
    return {
        name[len(UPSTREAM_KEYS) :]: key_digest(text.strip(), digest_key)
        for name, text in shown.items()
    }


def wrong_files(root, units):
    """Sorted paths that the next start or reload reads and that differ from what Corral wrote."""
    found, place = current(root), drop_in_path(units)
    if found is None:
        return [str(root / "current")]
    folder = root / found
    wrong = [] if is_private(folder) and digest(unnamed(folder)) == found else [str(folder)]
    drop_in = folder / DROP_IN
    same = place.is_file() and drop_in.is_file() and place.read_text() == drop_in.read_text()
    return wrong if same else [*wrong, str(place)]


def is_private(folder):
    """Whether only root can write a generation, and only root and HAProxy can read it."""
    return all(map(is_granted, (folder.parent, folder, *folder.iterdir())))


def is_granted(path):
    found = path.stat()
    access = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    return access == (os.geteuid(), readers(), mode_of(path))


def unnamed(folder):
    """Texts of a generation without its own id."""
    return {path.name: path.read_text().replace(folder.name, "") for path in folder.iterdir()}


def digest(texts):
    """The id of a generation, over all its files, as corral/gateway/files.py makes it."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
