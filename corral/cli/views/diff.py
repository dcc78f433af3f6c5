"""What `corral diff` prints."""

from __future__ import annotations

from collections.abc import Iterator

from corral.rollout.differences import FleetDiff, HostDiff, RevertForecast, RolloutForecast

_GIB = 1024**3


def diff_lines(found: FleetDiff) -> Iterator[str]:
    """A block for each host with changes, and one line for all others."""
    same = [one.host for one in found.hosts if not one.problem and not one.changes]
    for host in found.hosts:
        if host.problem:
            yield f"{host.host}: not compared: {host.problem}"
        elif host.changes:
            yield host.host
            yield from (f"  {line}" for line in _lines(host))
    if same:
        yield f"no change: {', '.join(same)}"


def rollout_lines(found: RolloutForecast) -> Iterator[str]:
    """The differences, then the waves."""
    yield from diff_lines(FleetDiff(hosts=found.hosts))
    for wave in found.waves:
        yield f"{wave.name}: {', '.join(wave.hosts)}"
    if len(found.waves) > 1:
        yield f"between waves: {found.soak_seconds} s"
    yield from (f"note: {note}" for note in found.notes)


def revert_lines(found: RevertForecast) -> Iterator[str]:
    """A block for each instance."""
    for one in found.instances:
        if one.problem:
            yield f"{one.name}: cannot be reverted: {one.problem}"
        elif one.from_generation == one.to_generation:
            yield f"{one.name}: serves {one.to_generation} already"
        else:
            yield f"{one.name}: {one.from_generation or 'none'} -> {one.to_generation}"
            yield from (f"  {text}" for text in one.changes)
    yield from (f"{name}: its gateway is reverted after its servers" for name in found.gateways)
    if not found.instances and not found.gateways:
        yield "nothing to revert"


def _lines(host: HostDiff) -> Iterator[str]:
    if host.packages:
        yield f"packages to install: {', '.join(host.packages)}"
    yield from (f"engine release to install: {one}" for one in host.releases)
    if host.files:
        yield f"files of models: {host.files}, {host.fetch_bytes / _GIB:.1f} GiB to fetch"
    if host.keys:
        yield f"key files to write: {', '.join(host.keys)}"
    yield from host.others
    for one in host.instances:
        yield f"{one.instance}: {one.from_generation or 'none'} -> {one.to_generation}, {one.how}"
        yield from (f"  {text}" for text in one.changes)
    yield from (f"gateway: {text}" for text in host.gateway)
