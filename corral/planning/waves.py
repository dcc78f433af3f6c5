"""Waves of a rollout: which hosts change together, and in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.fleet import FleetPolicy
from corral.schema import Frozen

# Alias -> the host of each of its members; a host appears once for each member.
Pools = Mapping[str, Sequence[str]]


class Wave(Frozen):
    """Hosts that change at the same time, one instance of each at a time.

    + warnings: aliases that this wave leaves with too few members, or none
    """

    name: str
    hosts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rules:
    policy: FleetPolicy
    pools: Pools

    def allow(self, chosen: Sequence[str]) -> bool:
        """Whether these hosts may be updated concurrently; a single host always may."""
        return len(chosen) == 1 or not any(self.problems(chosen))

    def problems(self, chosen: Sequence[str]) -> list[str]:
        """Aliases that would have too few members while these hosts change, as sentences."""
        problems = (self._problem(alias, members, chosen) for alias, members in self.pools.items())
        return [problem for problem in problems if problem]

    def _problem(self, alias: str, members: Sequence[str], chosen: Sequence[str]) -> str:
        changing = set(members) & set(chosen)
        serving = len(members) - len(changing)
        if changing and serving == 0:
            return f"{alias} has no member while {', '.join(sorted(changing))} changes in place"
        least = self.policy.min_serving
        if changing and serving < least:
            return f"{alias} keeps {serving} members, fewer than min_serving = {least}"
        if len(changing) > 1 and changing == set(members):
            return f"all hosts of {alias} change at once"
        return ""


def fleet_policy(hosts: Sequence[Host]) -> FleetPolicy:
    """The policy of a fleet, from those of its hosts that run instances.

    Raises CorralError for hosts that disagree, and for invalid sizes of waves.
    """
    serving = [host for host in hosts if host.spec.instances]
    if not serving:
        return FleetPolicy()
    _refuse_differences(serving)
    policy = serving[0].policy
    _refuse_bad_sizes(policy.waves, serving[0].name)
    return FleetPolicy(
        waves=policy.waves,
        min_serving=policy.min_serving,
        soak_seconds=policy.soak_seconds,
        canaries=frozenset(host.name for host in serving if host.policy.canary),
    )


def waves(
    names: Sequence[str],
    policy: FleetPolicy,
    pools: Pools,
    changing: Collection[str] | None = None,
) -> tuple[Wave, ...]:
    """The waves, with hosts in the order of the inventory.

    ``waves`` of the policy counts the hosts changed by the end of each wave, canaries included:
    (1, "20%", "100%") of ten hosts is 1, then 1 more, then 8. Shares are rounded up. Hosts left
    after the last size are one more wave. ``canary`` hosts come first, whatever the sizes.
    Hosts behind one alias never change all at once, and ``min_serving`` members stay: a host that
    would break that waits for a later wave, and changes alone where nothing else is possible.

    + names: hosts that run instances
    + changing: hosts that need a change; all if None. Never gives more waves than all hosts need,
      so that a deploy can prepare the waves before it knows
    """
    rules = _Rules(policy, pools)
    everyone = _cut(names, rules)
    if changing is None:
        return everyone
    some = _cut([name for name in names if name in changing], rules)
    return some if len(some) <= len(everyone) else _narrowed(everyone, changing, rules)


def _cut(names: Sequence[str], rules: _Rules) -> tuple[Wave, ...]:
    remaining = [name for name in names if name not in rules.policy.canaries]
    canaries = [name for name in names if name in rules.policy.canaries]
    groups: list[list[str]] = []
    while canaries:
        groups.append(_take(canaries, len(canaries), rules))
    for size in rules.policy.waves:
        room = _count(size, len(names)) - sum(map(len, groups))
        if remaining and room > 0:
            groups.append(_take(remaining, room, rules))
    while remaining:
        groups.append(_take(remaining, len(remaining), rules))
    return tuple(_wave(number, group, rules) for number, group in enumerate(groups, start=1))


def _take(remaining: list[str], most: int, rules: _Rules) -> list[str]:
    """Remove from ``remaining`` the first hosts that may be updated concurrently."""
    taken: list[str] = []
    for name in tuple(remaining):
        if len(taken) < most and rules.allow([*taken, name]):
            taken.append(name)
            remaining.remove(name)
    return taken


def _narrowed(
    everyone: Sequence[Wave], changing: Collection[str], rules: _Rules
) -> tuple[Wave, ...]:
    narrowed = [[name for name in wave.hosts if name in changing] for wave in everyone]
    groups = [group for group in narrowed if group]
    return tuple(_wave(number, group, rules) for number, group in enumerate(groups, start=1))


def _wave(number: int, group: Sequence[str], rules: _Rules) -> Wave:
    warnings = tuple(rules.problems(group))
    return Wave(name=f"wave {number}", hosts=tuple(group), warnings=warnings)


def _count(size: int | str, hosts: int) -> int:
    return size if isinstance(size, int) else -(-int(size.rstrip("%")) * hosts // 100)


def _refuse_differences(hosts: Sequence[Host]) -> None:
    first = hosts[0]
    for host in hosts:
        for key in ("waves", "min_serving"):
            if getattr(host.policy, key) != getattr(first.policy, key):
                what = f'"{key}" differs from that of {first.name}'
                step = f'set "{key}" once for all hosts of the inventory'
                raise CorralError(host.name, what, step)


def _refuse_bad_sizes(sizes: tuple[int | str, ...], where: str) -> None:
    for size in sizes:
        valid = size > 0 if isinstance(size, int) else re.fullmatch(r"([1-9][0-9]?|100)%", size)
        if not valid:
            _refuse(where, f'"waves" has {size!r}, which is neither a count nor a share like "20%"')
    if not sizes:
        _refuse(where, '"waves" is empty')
    for kind in (int, str):
        own = [_count(size, 100) for size in sizes if isinstance(size, kind)]
        if own != sorted(set(own)):
            _refuse(where, '"waves" must increase: each counts the hosts changed so far')


def _refuse(where: str, what: str) -> None:
    raise CorralError(where, what, 'write "waves" like (1, "20%", "100%") in the inventory')
