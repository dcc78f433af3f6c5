"""The page of a rollout: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from corral.rollout.journal import CONVERGED, MIXED, REVERTED, Rollout, Step
from corral.rollout.timeline import timeline
from corral.templating import page_environment

_OUTCOMES = {
    None: "not finished", CONVERGED: "converged", REVERTED: "reverted cleanly", MIXED: "mixed",
}  # fmt: skip


def outcome(rollout: Rollout) -> str:
    """The outcome of a rollout, for display."""
    return _OUTCOMES[rollout.exit_code]


def now_serving(rollout: Rollout, step: Step) -> str:
    """The generation that an instance serves now, as far as it is known."""
    if step.name in rollout.unclear():
        return "unclear"
    last = [r for r in (*rollout.reports, *rollout.reverts) if r.name == step.name]
    return (last[-1].serving or "nothing") if last else (step.from_generation or "nothing")


def page(rollout: Rollout, templates: Path) -> str:
    """The HTML of the page."""
    wave_of = {host: wave.name for wave in rollout.waves for host in wave.hosts}
    return (
        page_environment(templates)
        .get_template("rollout.html.j2")
        .render(
            r=rollout,
            outcome=outcome(rollout),
            rows=[(wave_of[s.host], s, now_serving(rollout, s)) for s in rollout.steps],
            done=sum(map(rollout.is_done, rollout.steps)),
            line=timeline(rollout),
            seconds=_duration,
        )
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if abs(seconds) < 120 else f"{seconds / 60:.1f} min"
