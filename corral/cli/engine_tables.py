"""Tables of engine releases and archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table

from corral.answers import InstalledRelease
from corral.archives import Archive

_MIB = 1024**2


def releases_table(found: Mapping[str, Sequence[InstalledRelease] | str]) -> Table:
    """One row a release, by host; a text instead of rows says why there are none."""
    table = Table("host", "engine", "release", "MiB", "age", "used by", box=None)
    for host, rows in found.items():
        if isinstance(rows, str):
            table.add_row(host, "", "", "", "", escape(rows))
            continue
        for row in rows:
            users = ", ".join(row.users) or "nobody"
            table.add_row(
                host, row.engine, row.key, _mib(row.size_bytes),
                age(row.installed_at), escape(users),
            )  # fmt: skip
    return table


def archives_table(found: Sequence[Archive]) -> Table:
    """One row an archive."""
    table = Table("engine", "release", "MiB", "built on", "age", box=None)
    for archive in found:
        table.add_row(
            archive.engine, archive.key, _mib(archive.size_bytes), escape(archive.builder),
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
