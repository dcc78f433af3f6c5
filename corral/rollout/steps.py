"""What a rollout will change: on which host, from what to what, in which wave, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.plan.instance import InstancePlan
from corral.planning.waves import Wave
from corral.remote.run import on_all
from corral.rollout.activation import Driver, NoGateway, Traffic, history, stored_plan
from corral.rollout.journal import Step
from corral.rollout.staging import Member

# Keys of an instance's plan that people think in -> what they are called.
_NAMED = {
    "model": "model", "quant": "quant", "release": "engine", "profile": "profile",
    "context_tokens_per_slot": "context", "slots": "slots",
}  # fmt: skip
_WAYS = {"in-place": "in place", "side-by-side": "side by side"}


def steps(
    members: Sequence[Member], waves: Sequence[Wave], traffic: Traffic | None = None
) -> tuple[Step, ...]:
    """One for each waiting instance, in the order of the waves. Raises CorralError.

    + traffic: the gateways in front of them
    """
    by_name = {member.host.name: member for member in members}
    ordered = [by_name[name] for wave in waves for name in wave.hosts]
    found = on_all(partial(_of_host, traffic=traffic or NoGateway()), ordered)
    return tuple(step for some in found for step in some)


def _of_host(member: Member, traffic: Traffic) -> list[Step]:
    reports = history(member.host, member.plan)
    driver = Driver(member.host, member.plan, traffic)
    return [_step(member, instance, reports, driver) for instance in member.waiting]


def _step(
    member: Member, instance: InstancePlan, reports: Sequence[Report], driver: Driver
) -> Step:
    found = member.state.instances[instance.name]
    before = found.installed_generation
    how, told = _how(instance, before, driver)
    return Step(
        host=member.host.name,
        instance=instance.name,
        from_generation=before,
        to_generation=instance.generation,
        changes=tuple(_changes(member, instance, before)),
        how=told,
        estimated_seconds=_estimate(instance, how, reports),
    )


def _how(instance: InstancePlan, before: str | None, driver: Driver) -> tuple[str, str]:
    """How the host would do it as things are now, in its words, and in those of the plan."""
    try:
        found, drained = driver.foresee(instance)
    except CorralError as error:
        return "", f"{_asked_for(instance, before)}; not foreseen: {error.what}"
    if found.how is None:
        return "", f"{_asked_for(instance, before)}; refused as things are now: {found.obstacle}"
    return found.how, f"{found.how}, drained at its gateway" if drained else found.how


def _asked_for(instance: InstancePlan, before: str | None) -> str:
    if before is None:
        return "first"
    ways = instance.activation
    freely = "side by side where both fit" if ways.spare else "in place"
    return _WAYS.get(ways.how, freely)


def _estimate(instance: InstancePlan, how: str, reports: Sequence[Report]) -> int:
    """As long as it took last time in this way; before, as long as its gate waits."""
    own = (r for r in reports if r.instance == instance.name and r.outcome == "kept" and r.phases)
    last = next((r for r in own if r.how == how), None)
    return round(last.seconds) if last else instance.ready_timeout_seconds


def _changes(member: Member, instance: InstancePlan, before: str | None) -> list[str]:
    if before is None:
        return ["new"]
    if before == instance.generation:
        differs = member.state.instances[instance.name].differs
        return list(differs) or ["its keys are to be replaced"]
    old = _plan_of(member, instance.name, before)
    return (
        changes(old, instance.model_dump(mode="json"))
        if old
        else ["unknown: the old plan is not readable there"]
    )


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two plans of an instance, as JSON documents, for people."""
    told = [f"{name} {old.get(key)} -> {new.get(key)}" for key, name in _NAMED.items()
            if old.get(key) != new.get(key)]  # fmt: skip
    was, will = _flags(old.get("argv", [])), _flags(new.get("argv", []))
    for flag in sorted(was.keys() | will.keys()):
        if was.get(flag) != will.get(flag):
            told.append(f"{flag} {was.get(flag, 'unset')} -> {will.get(flag, 'unset')}")
    return told or ["the unit's own settings"]


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """Flag -> its values; paths of weights and programs follow from what is named already."""
    found: dict[str, str] = {}
    flag = ""
    for word in argv[1:]:
        if word.startswith("--"):
            flag, found[word] = word, "set"
        elif flag and not word.startswith("/"):
            found[flag] = word if found[flag] == "set" else f"{found[flag]} {word}"
    return found


def _plan_of(member: Member, instance: str, generation: str) -> dict[str, Any] | None:
    try:
        return stored_plan(member.host, member.plan, instance, generation)
    except CorralError:
        # Made by an earlier version, or removed by hand: shown as such, and no reason to stop,
        # since the host itself checks what it can go back to.
        return None
