"""What a rollout will change: on which host, from what to what, in which wave, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.activation import history, kept_plan
from corral.errors import CorralError
from corral.plan import InstancePlan
from corral.remote import on_all
from corral.reports import Report
from corral.rollout.journal import Step
from corral.rollout.staging import Member
from corral.waves import Wave

# Keys of an instance's plan that people think in -> what they are called.
_NAMED = {
    "model": "model", "quant": "quant", "release": "engine", "profile": "profile",
    "context_tokens_per_slot": "context", "slots": "slots",
}  # fmt: skip
_WAYS = {"in-place": "in place", "side-by-side": "side by side"}


def steps(members: Sequence[Member], waves: Sequence[Wave]) -> tuple[Step, ...]:
    """One for each waiting instance, in the order of the waves. Raises CorralError."""
    by_name = {member.host.name: member for member in members}
    ordered = [by_name[name] for wave in waves for name in wave.hosts]
    return tuple(step for found in on_all(_of_host, ordered) for step in found)


def _of_host(member: Member) -> list[Step]:
    reports = history(member.host, member.plan)
    return [_step(member, instance, reports) for instance in member.waiting]


def _step(member: Member, instance: InstancePlan, reports: Sequence[Report]) -> Step:
    found = member.state.instances[instance.name]
    before = found.installed_generation
    return Step(
        host=member.host.name,
        instance=instance.name,
        from_generation=before,
        to_generation=instance.generation,
        changes=tuple(_changes(member, instance, before)),
        how=_how(instance, before),
        estimated_seconds=_estimate(instance, reports),
    )


def _how(instance: InstancePlan, before: str | None) -> str:
    if before is None:
        return "first"
    ways = instance.activation
    freely = "side by side where both fit" if ways.spare else "in place"
    return _WAYS.get(ways.how, freely)


def _estimate(instance: InstancePlan, reports: Sequence[Report]) -> int:
    """As long as it took last time; before the first time, as long as its gate waits."""
    own = (r for r in reports if r.instance == instance.name and r.outcome == "kept" and r.phases)
    last = next(own, None)
    return round(last.seconds) if last else instance.ready_timeout_seconds


def _changes(member: Member, instance: InstancePlan, before: str | None) -> list[str]:
    if before is None:
        return ["new"]
    if before == instance.generation:
        return ["its keys or its program were replaced, or it does not run"]
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
        return kept_plan(member.host, member.plan, instance, generation)
    except CorralError:
        # Made by an earlier version, or removed by hand: shown as such, and no reason to stop,
        # since the host itself checks what it can go back to.
        return None
