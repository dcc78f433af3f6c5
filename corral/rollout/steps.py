"""Steps of a rollout: which instance changes, from and to which generation, how and how long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from corral.drift import moved_placement
from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.plan.instance import InstancePlan
from corral.planning.waves import Wave
from corral.remote.run import on_all
from corral.rollout.activation import Driver, NoGateway, Traffic, history, stored_plan
from corral.rollout.journal import Step
from corral.rollout.staging import Member

# Keys of an instance's plan to show -> their names.
_NAMED = {
    "model": "model", "quant": "quant", "release": "engine", "profile": "profile",
    "context_tokens_per_slot": "context", "slots": "slots",
}  # fmt: skip
_HOW = {"in-place": "in place", "side-by-side": "side by side"}


def steps(
    members: Sequence[Member], waves: Sequence[Wave], traffic: Traffic | None = None
) -> tuple[Step, ...]:
    """One step for each waiting instance, in the order of the waves. Raises CorralError.

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
    installed = member.state.instances[instance.name].installed_generation
    how, shown = _how(instance, installed, driver)
    return Step(
        host=member.host.name,
        instance=instance.name,
        from_generation=installed,
        to_generation=instance.generation,
        changes=tuple(_changes(member, instance, installed)),
        how=shown,
        estimated_seconds=_estimate(instance, how, reports),
    )


def _how(instance: InstancePlan, installed: str | None, driver: Driver) -> tuple[str, str]:
    """How the host would activate it now: the host's answer, and the text for the plan."""
    try:
        forecast, drained = driver.forecast(instance)
    except CorralError as error:
        return "", f"{planned_how(instance, installed)}; the host gives no forecast: {error.what}"
    if forecast.how is None:
        return "", f"{planned_how(instance, installed)}; refused now: {forecast.obstacle}"
    return forecast.how, f"{forecast.how}, drained at its gateway" if drained else forecast.how


def planned_how(instance: InstancePlan, installed: str | None) -> str:
    """How an instance would be activated by its plan, without asking its host."""
    if installed is None:
        return "first"
    activation = instance.activation
    auto = "side by side where both fit" if activation.spare else "in place"
    return _HOW.get(activation.how, auto)


def _estimate(instance: InstancePlan, how: str, reports: Sequence[Report]) -> int:
    """Duration of the last activation of this kind, else the time that its gate waits."""
    own = (r for r in reports if r.instance == instance.name and r.outcome == "kept" and r.phases)
    last = next((r for r in own if r.how == how), None)
    return round(last.seconds) if last else instance.ready_timeout_seconds


def _changes(member: Member, instance: InstancePlan, installed: str | None) -> list[str]:
    if installed is None:
        return ["new"]
    if installed == instance.generation:
        differs = member.state.instances[instance.name].differs
        return list(differs) or ["its keys are to be replaced"]
    old = _plan_of(member, instance.name, installed)
    return (
        changes(old, instance.model_dump(mode="json"))
        if old
        else ["unknown: the old plan is not readable there"]
    )


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Differences between two plans of an instance, JSON documents, as texts for display."""
    texts = [f"{name} {old.get(key)} -> {new.get(key)}" for key, name in _NAMED.items()
             if old.get(key) != new.get(key)]  # fmt: skip
    was, will = _flags(old.get("argv", [])), _flags(new.get("argv", []))
    for flag in sorted(was.keys() | will.keys()):
        if was.get(flag) != will.get(flag):
            texts.append(f"{flag} {was.get(flag, 'unset')} -> {will.get(flag, 'unset')}")
    moved = moved_placement(old, new)
    return [*([moved.text] if moved else []), *texts] or ["the unit's own settings"]


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """Flag -> its values, without paths, which follow from the named keys."""
    values: dict[str, str] = {}
    flag = ""
    for argument in argv[1:]:
        if argument.startswith("--"):
            flag, values[argument] = argument, "set"
        elif flag and not argument.startswith("/"):
            values[flag] = argument if values[flag] == "set" else f"{values[flag]} {argument}"
    return values


def _plan_of(member: Member, instance: str, generation: str) -> dict[str, Any] | None:
    try:
        return stored_plan(member.host, member.plan, instance, generation)
    except CorralError:
        # Written by an earlier version, or removed by hand: shown as unknown, and no reason to
        # stop, since the host itself checks which generation it can revert to.
        return None
