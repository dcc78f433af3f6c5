"""The page of a rollout: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import jinja2
from corral_shared.text import printable
from markupsafe import Markup

from corral.rollout.journal import CONVERGED, MIXED, REVERTED, Rollout, Step

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


def _printable(value: object) -> object:
    """Remove control characters of servers' texts, which could hide or reverse the page's text."""
    if isinstance(value, Markup):
        return Markup(printable(value))  # noqa: S704 - it is escaped already
    return printable(value) if isinstance(value, str) else value


def page(rollout: Rollout, templates: Path) -> str:
    """The HTML of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
    )
    wave_of = {host: wave.name for wave in rollout.waves for host in wave.hosts}
    rows = [(wave_of[s.host], s, now_serving(rollout, s)) for s in rollout.steps]
    template = environment.get_template("rollout.html.j2")
    return template.render(r=rollout, outcome=outcome(rollout), rows=rows)
