"""Changes of a gateway, also while some of its servers have not changed yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corral_shared.gateway_lines import server_lines

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import Installed
from corral.gateway.files import CONFIG, UPSTREAM, GatewayFiles, gateway_files
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS, HostPaths
from corral.plan.gateway import GatewayPlan, Pool
from corral.plan.key_digest import key_digest
from corral.planning.interim_gateway import Settled, interim_plan
from corral.schema import Frozen
from corral.store.api_keys import keys_in
from corral.store.gateway_keys import upstream_keys


class GatewayChange(Frozen):
    """The next generation of a gateway; ``changes``: sentences for the operator.

    + plan: servers that have not changed yet are at their current addresses
    """

    plan: GatewayPlan
    files: GatewayFiles
    changes: tuple[str, ...]


def change(
    gateway: Host, planned: GatewayPlan, settled: Settled, *, paths: HostPaths, templates: Path
) -> GatewayChange | None:
    """The change of a gateway to make now; None where none is needed. Raises CorralError."""
    now = control.installed(gateway)
    plan = interim(planned, now, settled)
    shown = shown_keys(gateway, planned, now, settled)
    files = gateway_files(gateway, plan, paths=paths, templates=templates, shown=shown)
    if now.whole and now.generation == now.running == files.generation:
        return None
    return GatewayChange(plan=plan, files=files, changes=tuple(differences(now, files)))


def interim(planned: GatewayPlan, now: Installed, settled: Settled) -> GatewayPlan:
    """The plan, with each server that has not changed yet at its current address."""
    return interim_plan(planned, server_lines(now.config), settled)


def shown_keys(
    gateway: Host, planned: GatewayPlan, now: Installed, settled: Settled
) -> dict[str, str]:
    """Pool -> the key to send to its servers, where some of them lack the first one.

    Raises CorralError where the store no longer has that key.
    """
    return {
        pool.name: _shown(gateway, pool, now.upstream[pool.name])
        for pool in planned.pools
        if pool.name in now.upstream and not all(settled(member.name) for member in pool.members)
    }


def refuse_lost_keys(gateway: Host, planned: GatewayPlan, upstream: Mapping[str, str]) -> None:
    """Raises CorralError where the store lacks the key that a gateway sends to its servers.

    + upstream: pool -> digest of that key (corral.plan.key_digest)
    """
    for pool in planned.pools:
        if pool.name in upstream:
            _shown(gateway, pool, upstream[pool.name])


def _shown(gateway: Host, pool: Pool, digest: str) -> str:
    store = upstream_keys(gateway, pool)
    known = [key for key in keys_in(store.text) if key_digest(key) == digest]
    if not known:
        what = f"the key that {gateway.name} sends to the servers of {pool.alias} is missing"
        step = (
            f"add it again as the last line (that host has it in {HOST_PATHS.gateway}/current/"
            f"{UPSTREAM}), and remove it once all servers have the new one"
        )
        raise CorralError(store.path, what, step)
    return known[0]


def differences(now: Installed, files: GatewayFiles) -> list[str]:
    """Differences from the installed generation, as sentences without secrets."""
    if now.generation is None:
        return ["new"]
    changes = []
    unnamed = {n: text.replace(files.generation, "") for n, text in files.files.items()}
    digests = {n: key_digest(text) for n, text in unnamed.items() if n != CONFIG}
    for name in sorted(digests.keys() | now.files.keys()):
        if digests.get(name) != now.files.get(name):
            changes.append(_file_change(name, digests, now))
    old, new = now.config.splitlines(), unnamed[CONFIG].splitlines()
    changes += [f"- {line.strip()}" for line in old if line not in new and line.strip()]
    changes += [f"+ {line.strip()}" for line in new if line not in old and line.strip()]
    return changes or ["its files were edited, or it runs another generation"]


def _file_change(name: str, after: dict[str, str], now: Installed) -> str:
    kind, _, alias = name.partition("-")
    what = {
        "clients": f"client keys of {alias}", "names": f"names of clients of {alias}",
        "upstream": "the key that it sends to servers",
        "metrics": "the key of its metrics", "tls.pem": "certificate",
    }.get(kind, name)  # fmt: skip
    if name not in now.files:
        return f"{what}: new"
    return f"{what}: removed" if name not in after else f"{what}: changed"
