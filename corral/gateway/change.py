"""A change of a gateway: what it becomes while some of its servers have not changed yet."""

from __future__ import annotations

import hashlib
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
from corral.planning.gateway_between import Settled, interim_plan
from corral.schema import Frozen
from corral.store.api_keys import keys_in
from corral.store.gateway_keys import upstream_keys


class GatewayChange(Frozen):
    """What a gateway is switched to now; ``changes`` says for people what is another than before.

    + plan: with servers that have not changed where they are
    """

    plan: GatewayPlan
    files: GatewayFiles
    changes: tuple[str, ...]


def change(
    gateway: Host, planned: GatewayPlan, settled: Settled, *, paths: HostPaths, templates: Path
) -> GatewayChange | None:
    """What has to change at a gateway now; None where it runs that already. Raises CorralError."""
    now = control.installed(gateway)
    plan = as_far(planned, now, settled)
    shown = shown_keys(gateway, planned, now, settled)
    files = gateway_files(gateway, plan, paths=paths, templates=templates, shown=shown)
    if now.whole and now.generation == now.running == files.generation:
        return None
    return GatewayChange(plan=plan, files=files, changes=tuple(differences(now, files)))


def as_far(planned: GatewayPlan, now: Installed, settled: Settled) -> GatewayPlan:
    """The plan, with each server that has not changed yet where the gateway finds it now."""
    return interim_plan(planned, server_lines(now.config), settled)


def shown_keys(
    gateway: Host, planned: GatewayPlan, now: Installed, settled: Settled
) -> dict[str, str]:
    """Pool -> the key to show to its servers, where they do not all have the first one yet.

    Raises CorralError where the store has that key no more.
    """
    return {
        pool.name: _shown(gateway, pool, now.upstream[pool.name])
        for pool in planned.pools
        if pool.name in now.upstream and not all(settled(member.name) for member in pool.members)
    }


def refuse_lost_keys(gateway: Host, planned: GatewayPlan, upstream: Mapping[str, str]) -> None:
    """Raises CorralError where servers would not get the key that a gateway shows them now.

    + upstream: pool -> sha256 of that key
    """
    for pool in planned.pools:
        if pool.name in upstream:
            _shown(gateway, pool, upstream[pool.name])


def _shown(gateway: Host, pool: Pool, digest: str) -> str:
    store = upstream_keys(gateway, pool)
    known = [key for key in keys_in(store.text) if _sha256(key) == digest]
    if not known:
        what = f"the key that {gateway.name} shows to the servers of {pool.alias} is not there"
        step = (
            f"put it back as the last line (that host has it in {HOST_PATHS.gateway}/current/"
            f"{UPSTREAM}), and take it out once all servers have the new one"
        )
        raise CorralError(store.path, what, step)
    return known[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def differences(now: Installed, files: GatewayFiles) -> list[str]:
    """What is another than before, for people; never a secret."""
    if now.generation is None:
        return ["new"]
    told = []
    unnamed = {n: text.replace(files.generation, "") for n, text in files.files.items()}
    digests = {n: _sha256(text) for n, text in unnamed.items() if n != CONFIG}
    for name in sorted(digests.keys() | now.files.keys()):
        if digests.get(name) != now.files.get(name):
            told.append(_word(name, digests, now))
    before, after = now.config.splitlines(), unnamed[CONFIG].splitlines()
    told += [f"- {line.strip()}" for line in before if line not in after and line.strip()]
    told += [f"+ {line.strip()}" for line in after if line not in before and line.strip()]
    return told or ["its files were edited, or it runs another generation"]


def _word(name: str, after: dict[str, str], now: Installed) -> str:
    kind, _, alias = name.partition("-")
    what = {
        "clients": f"client keys of {alias}", "upstream": "the key that it shows to servers",
        "metrics": "the key of its metrics", "tls.pem": "certificate",
    }.get(kind, name)  # fmt: skip
    if name not in now.files:
        return f"{what}: new"
    return f"{what}: gone" if name not in after else f"{what}: changed"
