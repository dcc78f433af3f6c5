"""Pages of `corral tune`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from corral_shared.text import counted

from corral.bench.tune.gains import OBJECTIVES, Objective, ratio
from corral.bench.tune.record import Row
from corral.bench.tune.run import Outcome
from corral.bench.tune.space import Space
from corral.terminal import Rows, coloured

# Rows of the table that are not on the front.
_MOST_OTHERS = 5
# A gain in another objective that is worth a line, by how many runs, and what these may be off.
_WORTH_PERCENT, _WORTH_RUNS, _OFF_PERCENT = 10.0, 2, 3.0


def outcome_table(rows: Sequence[Row]) -> Rows:
    """The front, the current setting, and the best of the others."""
    table = Rows("setting", "answers", "prompts", "first token", "runs", "")
    others = 0
    for row in rows:
        if row.choices and not row.front:
            others += 1
            if others > _MOST_OTHERS:
                continue
        table.add(
            format_choices(row.choices),
            f"{row.answer_tokens_per_second:,.1f}",
            f"{row.prompt_tokens_per_second:,.0f}",
            f"{row.first_token_seconds:,.3f} s",
            str(row.runs),
            coloured("front", "green") if row.front else "",
        )
    return table


def verdict_line(outcome: Outcome) -> str:
    """The decision in one sentence."""
    sure = ""
    if outcome.gain_percent is not None and outcome.margin_percent is not None:
        sure = f" ({outcome.gain_percent:+.1f}% ± {outcome.margin_percent:.1f}%, in pairs)"
    goal = _GOALS[outcome.goal]
    if outcome.verdict == "better":
        return f"{outcome.name}: {format_choices(outcome.choices)} is better in {goal}{sure}"
    if outcome.verdict == "none":
        return f"{outcome.name}: no difference in {goal}: it stays as it is{sure}"
    return (
        f"{outcome.name}: the budget ended before a decision; the same command goes on where it "
        "was, with --budget for more time"
    )


def trade_lines(outcome: Outcome) -> Iterator[str]:
    """What is much better in something else than the goal and costs none of it, by several runs."""
    kept = next((row for row in outcome.rows if row.choices == outcome.choices), None)
    if kept is None:
        return
    goal, named = outcome.goal, []
    free = [
        row
        for row in outcome.rows
        if row.runs >= _WORTH_RUNS and _percent(kept, row, goal) >= -_OFF_PERCENT
    ]
    for other in (one for one in OBJECTIVES if one != goal):
        best = max(free, key=partial(_percent, kept, goal=other), default=kept)
        gain = _percent(kept, best, other)
        if best in named or gain < _WORTH_PERCENT:
            continue
        named.append(best)
        yield (
            f"{format_choices(best.choices)}: {_GOALS[other]} {gain:+.0f}%, {_GOALS[goal]} "
            f"{_percent(kept, best, goal):+.1f}%, by {counted(best.runs, 'run')}; the same command "
            f"with --goal {goal_option(other)} searches for that"
        )


def _percent(kept: Row, row: Row, goal: Objective) -> float:
    """By how much a row is better in an objective."""
    return 100 * ratio(row.gain[goal] - kept.gain[goal])


def goal_option(goal: Objective) -> str:
    """An objective as a person types it."""
    return goal.replace("_", "-")


_GOALS: dict[Objective, str] = {
    "answer": "answer tokens/s",
    "prompt": "prompt tokens/s",
    "first_token": "time to the first token",
}


def format_choices(choices: dict[str, str]) -> str:
    """Choices in words."""
    return ", ".join(f"{name} {choice}" for name, choice in choices.items()) or "as it is now"


def space_table(space: Space) -> Rows:
    """Each value alone: whether it can run."""
    table = Rows("subject", "value", "")
    for subject in space.alone():
        table.add(subject.subject, subject.now, coloured("now", "green"))
        for value in subject.values:
            why = coloured(f"no: {value.impossible}", "yellow") if value.impossible else ""
            table.add("", value.value, why)
    return table
