"""Secrets of receivers of alerts in the key store: a bearer token, or a password of a mail server.

Others make them, so they are not as long as keys; one line is all that Alertmanager reads.
"""

from __future__ import annotations

from pathlib import Path

from corral.errors import CorralError
from corral.files import reading
from corral.inventory.hosts import Host
from corral.store import sealed
from corral.store.api_keys import keep_text, key_path
from corral.store.sealed import stored_at

_MOST_BYTES = 4096
# No instance has an underscore in its name.
ALERTS = "alerts_"


def secret_name(receiver: str) -> str:
    """Name of a receiver's secret in the store."""
    return f"{ALERTS}{receiver}"


def alert_step(host: Host, name: str) -> str:
    """How its secret comes into the store."""
    return (
        f"write it there: `install -D -m 600 /dev/stdin {key_path(host, name)}`, then deploy again"
    )


def has_secret(host: Host, name: str) -> bool:
    """Whether the store has a file called ``name``, whatever is in it. Raises CorralError."""
    return _find(host, name) is not None


def keep_secret(host: Host, name: str, secret: str, *, replace: bool) -> bool:
    """Write a secret to the store; returns whether that changed it. Raises CorralError.

    + replace: replace another one, which is kept as a backup
    """
    if not _is_one_line(secret):
        step = f"look at it on {host.name}"
        raise CorralError(f"{host.name}/{name}", "the host has no line of ASCII text for it", step)
    return keep_text(
        host,
        name,
        f"{secret}\n",
        is_there=lambda: alert_secret(host, name) == secret,
        replace=replace,
    )


def alert_secret(host: Host, name: str) -> str:
    """The secret called ``name``, without a line end. Never print it. Raises CorralError."""
    where, step = f"{host.name}/{name}", alert_step(host, name)
    found = _find(host, name)
    if found is None:
        path = key_path(host, name)
        what = f"the store of this controller has no secret for this receiver ({path})"
        adopted = f"`corral keys adopt {where}` copies it, if {host.name} has it; else {step}"
        raise CorralError(where, what, adopted)
    text = sealed.read(found, most_bytes=_MOST_BYTES, next_step=f"see {found}")
    secret = text.removesuffix(b"\n").decode("ascii", errors="replace")
    if not _is_one_line(secret):
        raise CorralError(where, f"{found} is not one line of ASCII text", step)
    return secret


def _find(host: Host, name: str) -> Path | None:
    path = key_path(host, name)
    with reading(path, next_step=f"see {path}"):
        return stored_at(path)


def _is_one_line(secret: str) -> bool:
    whole = 0 < len(secret) < _MOST_BYTES and secret == secret.strip()
    return whole and secret.isascii() and secret.isprintable()
