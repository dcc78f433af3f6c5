"""Adopt keys of hosts into the store, for a controller that lost them or never had them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys.on_hosts import HeldKeys, held_keys, own_keys
from corral.monitoring.scrape import servers_job
from corral.remote.run import on_all
from corral.schema import Frozen
from corral.store.alert_secrets import ALERTS, alert_step, has_secret, keep_secret
from corral.store.api_keys import find_keys, keep_keys, key_path, keys_in, read_keys
from corral.store.gateway_keys import SCRAPE, UPSTREAM

Answer = HeldKeys | CorralError


class Wanted(Frozen):
    """Keys of a host to adopt; ``names``: None for all that the store lacks."""

    host: Host
    names: tuple[str, ...] | None = None


class _Others(Frozen):
    """Keys in the files of instances that are not of their clients; None: they are unknown.

    + gateways: what gateways send; + scrape: host -> key of its instances for a Prometheus
    + is_scrape_known: whether every Prometheus of the inventory answered
    """

    gateways: list[str] | None = Field(repr=False)
    scrape: dict[str, str] = Field(repr=False)
    is_scrape_known: bool


class Adopted(Frozen):
    """The outcome for the keys of HOST/INSTANCE; ``changed``: they are new in the store."""

    name: str
    changed: bool = False
    problem: str = ""


def adopt(wanted: Sequence[Wanted], fleet: Inventory, *, replace: bool) -> list[Adopted]:
    """Copy the keys of hosts into the store; a host that fails does not affect the others.

    + fleet: their inventory, gateways included; + replace: replace other keys
    """
    # Includes gateways and hosts of Prometheus with a mistake in their data.
    gateways = [host for host in fleet.hosts if host.data.get("gateway")]
    watchers = [host for host in fleet.hosts if _has_prometheus(host)]
    hosts = {one.name: one for one in (*(w.host for w in wanted), *gateways, *watchers)}
    answers = dict(zip(hosts, on_all(_fetch, hosts.values()), strict=True))
    watching = [answers[host.name] for host in watchers]
    others = _Others(
        gateways=_of_gateways(gateways, answers, fleet.mistakes),
        scrape=_scrape_keys(fleet.hosts, watching),
        is_scrape_known=not any(isinstance(one, CorralError) for one in watching),
    )
    return [one for each in wanted for one in _of_host(each, answers, others, replace)]


def _has_prometheus(host: Host) -> bool:
    monitoring = host.data.get("monitoring")
    return isinstance(monitoring, Mapping) and monitoring.get("prometheus") is not None


def _fetch(host: Host) -> Answer:
    try:
        return held_keys(host)
    except CorralError as error:
        return error


def _scrape_keys(hosts: Sequence[Host], watching: Sequence[Answer]) -> dict[str, str]:
    """Host -> the key that a Prometheus sends to its instances."""
    found: dict[str, str] = {}
    for answer in watching:
        if not isinstance(answer, CorralError):
            found |= answer.monitoring.scrape
    jobs = {host.name: servers_job(host.name) for host in hosts}
    return {name: found[job] for name, job in jobs.items() if job in found}


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


def _of_monitoring(host: Host, others: _Others) -> list[str] | None:
    """Keys of the host's instances for a Prometheus; None where there may be unknown ones.

    Those of a Prometheus that is in no inventory are known by the store alone.
    """
    stored = find_keys(host, SCRAPE)
    if stored is None and not others.is_scrape_known and "monitoring" in host.data:
        return None
    own = others.scrape.get(host.name)
    return [*(keys_in(stored.text) if stored else []), *([own] if own else [])]


def _of_host(
    wanted: Wanted, answers: Mapping[str, Answer], others: _Others, replace: bool
) -> list[Adopted]:
    host, answer = wanted.host, answers[wanted.host.name]
    if isinstance(answer, CorralError):
        return [Adopted(name=host.name, problem=answer.in_one_line)]
    scrape = others.scrape.get(host.name)
    held = {
        **answer.instances, **answer.gateway, **answer.alert_secrets, **answer.passwords,
        **({SCRAPE: scrape} if scrape else {}),
    }  # fmt: skip
    try:
        names = wanted.names or [n for n in held if replace or not _is_stored(host, n)]
        if scrape and set(names) & set(answer.instances) and not _is_stored(host, SCRAPE):
            # Without it the next deploy makes another one, which restarts the instances.
            names = tuple(dict.fromkeys([*names, SCRAPE]))
    except CorralError as error:
        return [Adopted(name=error.where, problem=error.in_one_line)]
    return [_one(host, name, held.get(name), answer, others, replace) for name in names]


def _is_stored(host: Host, name: str) -> bool:
    """Whether the store has it. Raises CorralError for keys that a server would misread."""
    is_secret = name.startswith(ALERTS)
    return has_secret(host, name) if is_secret else find_keys(host, name) is not None


def _one(
    host: Host, name: str, text: str | None, answer: HeldKeys, others: _Others, replace: bool
) -> Adopted:
    shown = f"{host.name}/{name}"
    if text is None:
        step = f"run `corral keys new {shown}`; for a new instance a deploy creates them"
        step = alert_step(host, name) if name.startswith(ALERTS) else step
        return Adopted(name=shown, problem=f"{host.name} has no keys for it. Next: {step}")
    try:
        if name.startswith(ALERTS):
            return Adopted(name=shown, changed=keep_secret(host, name, text, replace=replace))
        keys = keys_in(text)
        if name in answer.instances and name not in answer.gateway:
            of_monitoring = _of_monitoring(host, others)
            if others.gateways is None or of_monitoring is None:
                return Adopted(name=shown, problem=_unknown(others))
            keys = own_keys(text, [*others.gateways, *of_monitoring])
        return Adopted(name=shown, changed=keep_keys(host, name, keys, replace=replace))
    except CorralError as error:
        return Adopted(name=shown, problem=error.in_one_line)


def _unknown(others: _Others) -> str:
    silent = "gateway" if others.gateways is None else "host of a Prometheus"
    return (
        f"a {silent} did not answer, so its key cannot be separated from those of clients. "
        f"Next: start the {silent}, then run the same command again"
    )
