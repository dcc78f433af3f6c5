"""Tables and lines of a rollout."""

from __future__ import annotations

from corral.rollout.journal import Rollout
from corral.rollout.page import now_serving
from corral.terminal import Rows


def plan_table(rollout: Rollout) -> Rows:
    """The steps of a rollout, in order, with estimated durations."""
    heads = ("wave", "instance", "from", "to", "changes", "how", "about")
    table = Rows(*heads)
    wave_of = {host: wave.name for wave in rollout.waves for host in wave.hosts}
    for step in rollout.steps:
        table.add(
            wave_of[step.host].removeprefix("wave "), step.name, step.from_generation or "none",
            step.to_generation, "\n".join(step.changes), step.how,
            duration(step.estimated_seconds),
        )  # fmt: skip
    return table


def gateway_table(rollout: Rollout) -> Rows:
    """The changes of gateways, after the instances have changed."""
    table = Rows("gateway", "changes")
    for step in rollout.gateways:
        table.add(step.host, "\n".join(step.changes))
    return table


def total_seconds(rollout: Rollout) -> int:
    """Estimated duration: hosts of a wave change in parallel, instances of a host in turn."""
    longest = [
        max(sum(s.estimated_seconds for s in rollout.steps if s.host == name) for name in w.hosts)
        for w in rollout.waves
    ]
    return sum(longest) + rollout.soak_seconds * max(len(rollout.waves) - 1, 0)


def duration(seconds: int) -> str:
    """A duration for display."""
    return f"{seconds} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def outcome_table(rollout: Rollout) -> Rows:
    """The outcome of each instance, and the generation that it serves."""
    table = Rows("instance", "wanted", "outcome", "seconds", "gap", "serves")
    for step in rollout.steps:
        last = [r for r in rollout.reports if r.name == step.name][-1:]
        back = [r for r in rollout.reverts if r.name == step.name][-1:]
        outcomes = [r.outcome for r in last] + [f"reverted: {r.outcome}" for r in back]
        gaps = [f"{r.gap_seconds:.1f} s" for r in last if r.gap_seconds is not None]
        table.add(
            step.name, step.to_generation, ", ".join(outcomes) or "not changed",
            "".join(f"{r.seconds:.0f}" for r in last), "".join(gaps), now_serving(rollout, step),
        )  # fmt: skip
    return table
