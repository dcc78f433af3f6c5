"""What this host has and wants of the shards of its swarm, as other members may read it."""

import threading
import time
from dataclasses import dataclass

# Wanted; fetched from the hub or read for its pieces; taken from members; proved, and on offer.
WANTED, FETCHING, TAKING, HELD, WHOLE = "wanted", "fetching", "taking", "held", "whole"
STATES = (WANTED, FETCHING, TAKING, HELD, WHOLE)
LACKING = (WANTED, FETCHING, TAKING)


@dataclass(frozen=True)
class Entry:
    """State of one shard on one host; ``pieces``: digests of its pieces, "" where unknown."""

    state: str
    size_bytes: int
    pieces: str = ""


class Table:
    """Digest -> entry, shared by the threads of a member."""

    def __init__(self):
        self._lock = threading.Lock()
        self._entries, self._settled_at, self._askers = {}, None, {}
        self.arrived = {}

    def set(self, sha256, entry):
        with self._lock:
            self._entries[sha256] = entry

    def drop(self, sha256):
        with self._lock:
            self._entries.pop(sha256, None)

    def entries(self):
        with self._lock:
            return dict(self._entries)

    def get(self, sha256):
        return self.entries().get(sha256)

    def state_of(self, sha256):
        entry = self.get(sha256)
        return entry.state if entry else None

    def settle(self):
        """Note that this host has all that it wants."""
        with self._lock:
            self._settled_at = self._settled_at or time.monotonic()

    def asked(self, name):
        """Note that a member has read this table."""
        with self._lock:
            self._askers[name] = time.monotonic()

    def knows(self, name):
        """Whether a member has read this table since this host has all that it wants."""
        with self._lock:
            at = self._askers.get(name)
            return bool(at and self._settled_at and at > self._settled_at)

    def document(self):
        """The table as other members read it."""
        entries = self.entries()
        return {
            "settled": self._settled_at is not None,
            "shards": {
                sha256: [one.state, self._bytes(sha256, one)] for sha256, one in entries.items()
            },
        }

    def _bytes(self, sha256, entry):
        if entry.state in (HELD, WHOLE):
            return entry.size_bytes
        measure = self.arrived.get(sha256)
        return min(measure(), entry.size_bytes) if measure else 0
