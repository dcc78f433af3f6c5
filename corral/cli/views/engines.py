"""Tables of engine releases and archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from corral.host.answers import InstalledRelease
from corral.store.engine_archives import Archive
from corral.terminal import Rows

_MIB = 1024**2


def releases_table(found: Mapping[str, Sequence[InstalledRelease] | str]) -> Rows:
    """One row a release, by host; a text instead of rows says why there are none."""
    table = Rows("host", "engine", "release", "MiB", "age", "used by")
    for host, rows in found.items():
        if isinstance(rows, str):
            table.add(host, "", "", "", "", rows)
            continue
        for row in rows:
            users = ", ".join(row.users) or "nobody"
            table.add(
                host, row.engine, row.key, _mib(row.size_bytes),
                age(row.installed_at), users,
            )  # fmt: skip
    return table


def archives_table(found: Sequence[Archive]) -> Rows:
    """One row an archive."""
    table = Rows("engine", "release", "MiB", "built on", "age")
    for archive in found:
        table.add(
            archive.engine, archive.key, _mib(archive.size_bytes), archive.builder,
            age(archive.built_at.isoformat() if archive.built_at else None),
        )  # fmt: skip
    return table


def age(moment: str | None) -> str:
    """How long ago an ISO moment was, in its largest unit."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(moment or "")).total_seconds()
    except (ValueError, TypeError):  # also one without a zone
        return "?"
    for unit, length_seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_seconds:
            return f"{seconds // length_seconds:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.0f}"
