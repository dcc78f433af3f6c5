"""Tables of weights on hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from corral.host.answers import HostWeights, WeightsFile
from corral.terminal import Rows, coloured

_GIB = 1024**3


def weights_table(hosts: Mapping[str, HostWeights]) -> Rows:
    """One row for each model, quant and revision on each host."""
    table = Rows("host", "model", "quant", "files", "size", "needed by", "last used", "folder")
    for host, found in hosts.items():
        for files in _sets(found):
            first = files[0]
            users = tuple(dict.fromkeys(user for one in files for user in one.users))
            needed = ", ".join(users) or coloured("nobody", "yellow")
            size = sum({one.file: one.size_bytes for one in files}.values())
            broken = any(not one.proved for one in files)
            count = coloured(f"{len(files)}, changed", "red") if broken else str(len(files))
            last = max(one.last_used for one in files) or "unknown"
            table.add(
                host, first.model or "unknown", first.quant or "unknown", count,
                gib(size), needed, last, _folder(first.path),
            )  # fmt: skip
    return table


def _sets(found: HostWeights) -> Iterator[list[WeightsFile]]:
    """Files of one model, quant and folder, which are needed together."""

    def key(one: WeightsFile) -> tuple[str, str, str, tuple[str, ...]]:
        return one.model, one.quant, _folder(one.path), one.users

    for _, files in groupby(sorted(found.files, key=key), key=key):
        yield list(files)


def sums(host: str, found: HostWeights) -> str:
    """One line about all weights of a host and its disk."""
    disk = found.disk
    line = (
        f"{host}: {gib(found.size_bytes)} of weights, {gib(found.unneeded_bytes)} of them that "
        f"nobody needs; {disk.folder} has {gib(disk.free_bytes)} free of {gib(disk.total_bytes)}"
    )
    if found.partial_bytes:
        line += f"; {gib(found.partial_bytes)} of downloads that have not ended"
    return line


def gib(size_bytes: int) -> str:
    """A size for display."""
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB / 10 else f"{size_bytes:,} bytes"


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
