"""Secrets of a gateway on the controller: keys of clients, its own keys, its certificate."""

from __future__ import annotations

from pathlib import Path

from corral.errors import CorralError
from corral.gateway.plan import Pool
from corral.inventory import Host
from corral.keys import KeyFile, ensure_keys


def client_keys(gateway: Host, pool: Pool) -> KeyFile:
    """What clients of an alias may show. Raises CorralError."""
    return ensure_keys(gateway, f"gateway-{pool.name}")


def metrics_keys(gateway: Host) -> KeyFile:
    """What may read the gateway's metrics. Raises CorralError."""
    return ensure_keys(gateway, "gateway_metrics")


def upstream_keys(gateway: Host, pool: Pool) -> KeyFile:
    """What the gateway shows to the instances of an alias: the first key; they take all of them.

    Raises CorralError.
    """
    return ensure_keys(gateway, f"upstream-{pool.name}")


def certificate(gateway: Host) -> str | None:
    """The PEM file that the inventory names, with its private key. Raises CorralError."""
    spec = gateway.spec.gateway
    if spec is None or spec.tls_certificate is None:
        return None
    path = Path(spec.tls_certificate).expanduser()
    where = f"{gateway.name}: gateway, tls_certificate {path}"
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CorralError(where, f"not readable: {error}", "name a PEM file") from error
    for part in ("CERTIFICATE", "PRIVATE KEY"):
        if f"{part}-----" not in text:
            raise CorralError(where, f"holds no {part}", "put chain and key into one PEM file")
    return text
