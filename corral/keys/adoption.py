"""Adopt keys of hosts into the store, for a controller that lost them or never had them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys.on_hosts import HeldKeys, held_keys, own_keys
from corral.remote.run import on_all
from corral.schema import Frozen
from corral.store.api_keys import find_keys, keep_keys, key_path, keys_in, read_keys
from corral.store.gateway_keys import SCRAPE, UPSTREAM

Answer = HeldKeys | CorralError


class Wanted(Frozen):
    """Keys of a host to adopt; ``names``: None for all that the store lacks."""

    host: Host
    names: tuple[str, ...] | None = None


class Adopted(Frozen):
    """The outcome for the keys of HOST/INSTANCE; ``changed``: they are new in the store."""

    name: str
    changed: bool = False
    problem: str = ""


def adopt(wanted: Sequence[Wanted], fleet: Inventory, *, replace: bool) -> list[Adopted]:
    """Copy the keys of hosts into the store; a host that fails does not affect the others.

    + fleet: their inventory, gateways included; + replace: replace other keys
    """
    # Includes gateways with a mistake in their data.
    gateways = [host for host in fleet.hosts if host.data.get("gateway")]
    hosts = {one.host.name: one.host for one in wanted}
    hosts |= {host.name: host for host in gateways}
    answers = dict(zip(hosts, on_all(_fetch, hosts.values()), strict=True))
    of_gateways = _of_gateways(gateways, answers, fleet.mistakes)
    return [one for each in wanted for one in _of_host(each, answers, of_gateways, replace)]


def _fetch(host: Host) -> Answer:
    try:
        return held_keys(host)
    except CorralError as error:
        return error


def _of_gateways(
    gateways: Sequence[Host], answers: Mapping[str, Answer], mistaken: Collection[str]
) -> list[str] | None:
    """Keys that gateways send to instances; None where those of a gateway are unknown.

    + mistaken: hosts with a mistake in their data, perhaps in the folder of their keys
    """
    keys: list[str] = []
    for gateway in gateways:
        answer = answers[gateway.name]
        stored = [] if gateway.name in mistaken else _stored_upstream(gateway)
        if isinstance(answer, CorralError) and not stored:
            return None
        keys += stored
        if not isinstance(answer, CorralError):
            texts = [text for name, text in answer.gateway.items() if name.startswith(UPSTREAM)]
            keys += [key for text in texts for key in keys_in(text)]
    return keys


def _stored_upstream(gateway: Host) -> list[str]:
    files = sorted(key_path(gateway, UPSTREAM).parent.glob(f"{UPSTREAM}*"))
    return [key for path in files for key in keys_in(read_keys(path).text)]


def _of_monitoring(host: Host) -> list[str]:
    """Keys of the host's instances for a Prometheus, as far as the store has them."""
    path = key_path(host, SCRAPE)
    return keys_in(read_keys(path).text) if path.exists() else []


def _of_host(
    wanted: Wanted, answers: Mapping[str, Answer], of_gateways: list[str] | None, replace: bool
) -> list[Adopted]:
    host, answer = wanted.host, answers[wanted.host.name]
    if isinstance(answer, CorralError):
        return [Adopted(name=host.name, problem=answer.in_one_line)]
    held = [*answer.instances, *answer.gateway]
    try:
        names = wanted.names or [n for n in held if replace or find_keys(host, n) is None]
    except CorralError as error:
        return [Adopted(name=error.where, problem=error.in_one_line)]
    return [_one(host, name, answer, of_gateways, replace) for name in names]


def _one(
    host: Host, name: str, answer: HeldKeys, of_gateways: list[str] | None, replace: bool
) -> Adopted:
    shown = f"{host.name}/{name}"
    text = answer.gateway.get(name) or answer.instances.get(name)
    if text is None:
        step = f"run `corral keys new {shown}`; for a new instance a deploy creates them"
        return Adopted(name=shown, problem=f"{host.name} has no keys for it. Next: {step}")
    keys = keys_in(text)
    if name not in answer.gateway:
        if of_gateways is None:
            problem = (
                "a gateway did not answer, so its key cannot be separated from those of clients. "
                "Next: start the gateway, then run the same command again"
            )
            return Adopted(name=shown, problem=problem)
        keys = own_keys(text, [*of_gateways, *_of_monitoring(host)])
    try:
        return Adopted(name=shown, changed=keep_keys(host, name, keys, replace=replace))
    except CorralError as error:
        return Adopted(name=shown, problem=error.in_one_line)
