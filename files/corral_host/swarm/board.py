"""What the other members say of themselves, asked again and again; nothing of it is believed much.

A lie costs time: bytes count only once their sha256 is that of the lock.
"""

import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from corral_host.swarm.pieces import is_pieces
from corral_host.swarm.table import STATES, TAKING, WHOLE

POLL_SECONDS = 1
# A large fleet is asked more slowly, so that each host answers some ten questions a second.
PEERS_PER_SECOND = 10
TIMEOUT_SECONDS = 3
SILENT_SECONDS = 20
MOST_BYTES = 1024 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Seen:
    """A member's last answer."""

    at: float
    settled: bool = False
    shards: dict = field(default_factory=dict)


class Board:
    """The last answer of each other member."""

    def __init__(self, settings):
        self.settings = settings
        self._lock, self._seen = threading.Lock(), {}
        self._began, self._stopping = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._ask_for_ever, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()

    @property
    def pause_seconds(self):
        return max(POLL_SECONDS, len(self.settings.peers) / PEERS_PER_SECOND)

    @property
    def silent_seconds(self):
        return max(SILENT_SECONDS, 5 * self.pause_seconds)

    def ask_all(self):
        """Ask every member that may still change."""
        ended = {name for name, one in self.seen().items() if one.settled and not self._lives(one)}
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(self._ask, [p for p in self.settings.others if p.name not in ended]))

    def _ask_for_ever(self):
        while not self._stopping.wait(self.pause_seconds):
            self.ask_all()

    def _ask(self, peer):
        text = answer(self.settings.me, peer, f"/table/{self.settings.me.name}")
        found = seen_in(text)
        if found:
            with self._lock:
                self._seen[peer.name] = found

    def seen(self):
        with self._lock:
            return dict(self._seen)

    def _lives(self, one):
        return time.monotonic() - one.at < self.silent_seconds / 2

    def living(self):
        """Name -> answer, of the members that answered lately."""
        return {name: one for name, one in self.seen().items() if self._lives(one)}

    def is_awaited(self, name):
        """Whether a member takes part in this run and may still want something of this host."""
        one = self.seen().get(name)
        if one and one.settled:
            return False
        since = one.at if one else self._began
        return time.monotonic() - since < self.silent_seconds

    def awaited(self):
        mine = self.settings.me.name
        return [name for name in self.settings.expected if name != mine and self.is_awaited(name)]

    def sharing(self, sha256):
        """Members that have pieces of a shard, this host excepted."""
        states = {name: one.shards.get(sha256) for name, one in self.living().items()}
        return [
            peer for peer in self.settings.others
            if (states.get(peer.name) or ("",))[0] in (TAKING, WHOLE)
        ]  # fmt: skip

    def having(self, sha256, state):
        """Names of the living members in whose table a shard has a state."""
        living = self.living()
        return [
            peer.name for peer in self.settings.others
            if peer.name in living and living[peer.name].shards.get(sha256, ("",))[0] == state
        ]  # fmt: skip

    def pieces(self, sha256, size_bytes):
        """Digests of the pieces of a shard, from a member that has all of it; None if none says."""
        names = [*self.having(sha256, WHOLE), *self.having(sha256, TAKING)]
        for peer in sorted(self.settings.others, key=lambda one: order(one.name, names)):
            text = answer(self.settings.me, peer, f"/pieces/{sha256}") if peer.name in names else ""
            if is_pieces(text, size_bytes):
                return text
        return None


def order(name, names):
    return names.index(name) if name in names else len(names)


def answer(me, peer, path):
    """Text of a member's answer, "" for none. The connection comes from this host's own address."""
    connection = http.client.HTTPConnection(
        peer.address, peer.port, timeout=TIMEOUT_SECONDS, source_address=(me.address, 0)
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(MOST_BYTES + 1)
        return body.decode() if response.status == 200 and len(body) <= MOST_BYTES else ""
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    finally:
        connection.close()


def seen_in(text):
    """A member's table; None if the text is not one."""
    try:
        found = json.loads(text)
        shards = {
            sha256: (state, size)
            for sha256, (state, size) in found["shards"].items()
            if DIGEST.fullmatch(sha256) and state in STATES and type(size) is int and size >= 0
        }
        return Seen(time.monotonic(), found["settled"] is True, shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
