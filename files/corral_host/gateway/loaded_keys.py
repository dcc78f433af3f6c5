"""The keys that HAProxy's workers have loaded: those of clients (ACLs), and of servers (a map).

An old worker answers one more request on each connection that was idle at the reload. By then it
must know which keys are revoked, and which key its servers take now.
"""

import contextlib
import os
import re

from corral_host.gateway.socket import CURRENT, ask, order, workers
from corral_host.server.held_keys import UPSTREAM
from corral_host.system.commands import HostError

# Words of an entry: its reference, of a map the name, and the key.
WORDS = {"acl": 2, "map": 3}
LISTED = re.compile(r"^(\d+) \((\S+)\)", re.MULTILINE)


def key_files(kind, worker=CURRENT):
    """Name of each key file of a worker -> its number and its entries, as lists of WORDS.

    ``kind``: "acl" or "map". Raises HostError.
    """
    return {
        os.path.basename(path): (number, entries(kind, number, worker))
        for number, path in LISTED.findall(ask(f"show {kind}", worker))
    }


def entries(kind, number, worker):
    found = [line.split() for line in ask(f"show {kind} #{number}", worker).splitlines()]
    if any(len(words) != WORDS[kind] for words in found):
        # No line of it is quoted: it may be a key.
        raise HostError(
            f"HAProxy's answer about its {kind} {number} is not whole",
            "on the gateway: systemctl status haproxy",
        )
    return found


def in_haproxy():
    """Name of each key file -> the keys that HAProxy has loaded; for a map a dictionary."""
    acls, maps = key_files("acl"), key_files("map")
    return {
        **{name: {key for _, key in found} for name, (_, found) in acls.items()},
        **{name: {one: key for _, one, key in found} for name, (_, found) in maps.items()},
    }


def tell_old_workers():
    """Take the keys that the current worker does not know from the old ones, and renew the rest."""
    current = in_haproxy()
    for worker in workers()[1:]:
        with contextlib.suppress(HostError):  # it may end at any time
            forget_revoked(worker, current)
            renew_upstream(worker, current.get(UPSTREAM, {}))


def forget_revoked(worker, current):
    for name, (number, found) in key_files("acl", worker).items():
        for reference, key in found:
            if key not in current.get(name, ()):
                order(f"del acl #{number} #{reference}", worker)


def renew_upstream(worker, current):
    number, found = key_files("map", worker).get(UPSTREAM, (None, []))
    for reference, pool, key in found:
        if current.get(pool, key) != key:
            order(f"set map #{number} #{reference} {current[pool]}", worker)
