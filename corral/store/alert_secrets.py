"""Secrets of receivers of alerts in the key store: a bearer token, or a password of a mail server.

Others make them, so they are not as long as keys; one line is all that Alertmanager reads.
"""

from __future__ import annotations

from corral.errors import CorralError
from corral.files import reading
from corral.inventory.hosts import Host
from corral.store import sealed
from corral.store.api_keys import key_path
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


def alert_secret(host: Host, name: str) -> str:
    """The secret called ``name``, without a line end. Never print it. Raises CorralError."""
    path, step = key_path(host, name), alert_step(host, name)
    with reading(path, next_step=f"see {path}"):
        found = stored_at(path)
    where = f"{host.name}/{name}"
    if found is None:
        what = f"the store of this controller has no secret for this receiver ({path})"
        raise CorralError(where, what, step)
    text = sealed.read(found, most_bytes=_MOST_BYTES, next_step=f"see {found}")
    secret = text.removesuffix(b"\n").decode("ascii", errors="replace")
    if not secret or not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise CorralError(where, f"{found} is not one line of ASCII text", step)
    return secret
