"""Digests of the pieces of a file, and the torrent that aria2 reads them from.

Hosts send each other only the digests. Each host writes its own torrent, so that no torrent of
another host is read here. Whatever the pieces say, the locked sha256 decides in the end.
"""

import hashlib
import re
from pathlib import Path

from corral_host.system.commands import CHUNK_BYTES, PROGRESS_BYTES, read_json, write_atomic

LARGEST_PIECE = 16 * 1024 * 1024
SMALLEST_PIECE = 256 * 1024
# A host passes on whole pieces, and aria2 asks everybody for the last 20 of a file at once: fewer
# pieces than this would go over the first host's link several times.
LEAST_PIECES = 512
DIGEST_HEX = 40
HEX = re.compile(r"[0-9a-f]+")


def piece_bytes(size_bytes):
    """Size of the pieces of a file: 16 MiB from 8 GiB on, less for smaller files."""
    size = LARGEST_PIECE
    while size > SMALLEST_PIECE and size_bytes < size * LEAST_PIECES:
        size //= 2
    return size


def is_pieces(text, size_bytes):
    """Whether a text can be the digests of all pieces of a file."""
    count = -(-size_bytes // piece_bytes(size_bytes))
    return isinstance(text, str) and len(text) == count * DIGEST_HEX and bool(HEX.fullmatch(text))


def read(path, size_bytes, progress=None):
    """sha256 of a file, and the digests of its pieces as text, by reading it once."""
    whole, pieces, done = hashlib.sha256(), [], 0
    size = piece_bytes(size_bytes)
    piece, room = hashlib.sha1(), size  # noqa: S324 - BitTorrent's own; sha256 is the proof
    with open(path, "rb") as file:
        while block := file.read(min(CHUNK_BYTES, room)):
            whole.update(block)
            piece.update(block)
            done, room = done + len(block), room - len(block)
            if not room:
                pieces.append(piece.hexdigest())
                piece, room = hashlib.sha1(), size  # noqa: S324
            if progress and done % PROGRESS_BYTES == 0:
                progress(done)
    if room < size:
        pieces.append(piece.hexdigest())
    return whole.hexdigest(), "".join(pieces)


def pieces_folder(paths):
    return Path(paths["state"]) / "swarm"


def pieces_file(shard, folder):
    return folder / f"{shard['sha256']}.json"


def forget_others(paths, kept):
    """Remove digests of pieces of files that are not among ``kept``, sha256 of each."""
    folder = pieces_folder(paths)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stem not in kept:
            path.unlink()


def kept(shard, folder):
    """Digests of the pieces of a proved file, from when it was proved; None if there are none."""
    found = read_json(pieces_file(shard, folder))
    pieces = found.get("pieces") if isinstance(found, dict) else None
    return pieces if is_pieces(pieces, shard["size_bytes"]) else None


def keep(shard, folder, pieces):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(pieces_file(shard, folder), f'{{"pieces": "{pieces}"}}\n', mode=0o600)


def info(sha256, size_bytes, pieces):
    """The part of a torrent that names the file: the same on every host."""
    return {
        b"length": size_bytes,
        b"name": sha256.encode(),
        b"piece length": piece_bytes(size_bytes),
        b"pieces": bytes.fromhex(pieces),
        b"private": 1,
    }


def info_hash(sha256, size_bytes, pieces):
    return hashlib.sha1(bencoded(info(sha256, size_bytes, pieces))).digest()  # noqa: S324


def torrent(file, pieces, announce):
    about = info(file.sha256, file.size_bytes, pieces)
    return bencoded({b"announce": announce.encode(), b"info": about})


def bencoded(value):
    """Numbers, bytes and dictionaries as BitTorrent writes them (BEP 3)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    pairs = (bencoded(key) + bencoded(value[key]) for key in sorted(value))
    return b"d%be" % b"".join(pairs)
