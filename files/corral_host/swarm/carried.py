"""What a swarm carries: files of weights, which the hub has too, and archives of releases.

An archive comes from the controller, which sends it to one host and to those that get it nowhere
else.
"""

import os
from pathlib import Path

from corral_host.swarm import pieces
from corral_host.system.commands import rename, sync
from corral_host.weights import fetch
from corral_host.weights.adopt import is_same
from corral_host.weights.receipts import receipt_path, shard_is_proved, staging_path

# Beside the archive, so that a rename puts it in place.
ARRIVING = ".arriving"


class Weights:
    """A file of weights: its receipt says whether it is whole."""

    from_hub = True
    # By aria2's user, as by those of servers.
    is_readable = True

    def __init__(self, shard, paths):
        self.shard, self.paths = shard, paths
        self.sha256, self.size_bytes = shard["sha256"], shard["size_bytes"]
        self.path, self.staged = Path(shard["path"]), staging_path(shard, paths)

    def is_whole(self):
        return shard_is_proved(self.shard)

    def prepare(self):
        """Make its folders. Raises HostError where its disk is not mounted."""
        fetch.refuse(fetch.root_fault(self.paths))
        fetch.make_folders(self.shard, self.staged)

    def fetch(self, digest_of):
        """Fetch it from the hub."""
        fetch.refuse(fetch.root_fault(self.paths))
        fetch.fetch_shard(self.shard, self.staged, digest_of)

    def put_in_place(self, about):
        """``about``: what stat said of the staged file when its digest was proved."""
        fetch.put_in_place(self.shard, self.staged, about)

    def spoil(self):
        """Its bytes are not those that were proved: the next deploy fetches it."""
        receipt_path(self.shard).unlink(missing_ok=True)

    def pieces(self):
        return pieces.kept(self.shard, pieces.pieces_folder(self.paths)) or ""

    def keep_pieces(self, digests):
        pieces.keep(self.shard, pieces.pieces_folder(self.paths), digests)


class Archive:
    """An archive of a release, until it is installed: whole while nobody changes the file."""

    from_hub = False
    # Its folder is root's alone.
    is_readable = False

    def __init__(self, archive):
        self.sha256, self.size_bytes = archive["sha256"], archive["size_bytes"]
        self.path = Path(archive["path"])
        self.staged = self.path.with_name(self.path.name + ARRIVING)
        self._about = None

    def is_whole(self):
        try:
            now = os.stat(self.path)
        except OSError:
            return False
        self._about = self._about or now
        return now.st_size == self.size_bytes and is_same(now, self._about)

    def prepare(self):
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put_in_place(self, about):
        sync(self.staged)
        rename(self.staged, self.path)
        self._about = about

    def spoil(self):
        self.path.unlink(missing_ok=True)

    def pieces(self):
        """None are kept: the archive goes when it is installed."""
        return ""

    def keep_pieces(self, digests):
        pass
