"""Negative controls: the same faults without Corral's protection. Do the tests see the damage?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from lab.chaos import faults, rules, tally
from lab.chaos.chores import NEW_QUANT
from lab.chaos.fleet import Fleet
from lab.chaos.operators import Done, ended
from lab.chaos.play import OLD
from lab.chaos.scenarios import (
    ENGINE_MARK,
    GIBBERISH_MODEL,
    NEW_ENGINE,
    QUANT_MARK,
)
from lab.chaos.wanted import Keys

SEEN_SECONDS = 12
# A good restart costs one or two requests at the load's rate. Below this share of the tokens/s the
# server counts as slow.
RESTART_REQUESTS = 5
SLOW_SHARE = 0.6
SERVER = 1


@dataclass(frozen=True)
class Control:
    """A bad change that a plain restart activates."""

    name: str
    fault: str
    make: Callable[[Fleet], AbstractContextManager[None]]
    change: Keys


@dataclass(frozen=True)
class Damage:
    """What clients of the server saw; ``words`` is empty if they saw nothing."""

    name: str
    fault: str
    asked: int
    failed: int
    failures: dict[str, int]
    words: str


def play(fleet: Fleet, control: Control, folder: Path) -> Damage:
    """Restart one server plainly with the bad generation, measure, and repair it by a deploy."""
    fleet.want({**OLD, **control.change})
    generation = rules.planned(fleet, SERVER, serves=False).id
    _stage(fleet)
    fleet.want(OLD)
    _deploy(fleet)
    good = rules.ask(fleet, SERVER)
    out = folder / f"{control.name}.jsonl"
    out.unlink(missing_ok=True)
    before = rules.tokens_per_second(fleet, SERVER)
    with fleet.load(out, server=SERVER), control.make(fleet):
        began = time.monotonic()
        faults.restart_plainly(fleet, SERVER, generation)
        time.sleep(SEEN_SECONDS)
        found = _seen(fleet, good, before)
    _deploy(fleet)
    seen = tally.summary(one for one in tally.read(out) if one.began_seconds >= began)
    if seen.failed > RESTART_REQUESTS:
        found.insert(0, f"{seen.failed} of {seen.asked} requests failed")
    words = ", ".join(found)
    return Damage(control.name, control.fault, seen.asked, seen.failed, seen.failures, words)


def _seen(fleet: Fleet, good: str, before: float) -> list[str]:
    """What a client sees of the restarted server."""
    try:
        reply = rules.ask(fleet, SERVER)
        share = rules.tokens_per_second(fleet, SERVER) / before
    except (URLError, OSError, ValueError, KeyError) as error:
        return [f"no reply ({type(error).__name__})"]
    found = [] if reply == good else [f"the reply is {reply!r}"]
    return [*found, *([f"{share:.0%} of the tokens/s"] if share < SLOW_SHARE else [])]


def _stage(fleet: Fleet) -> None:
    _refuse_failed(ended(fleet.clone.start("deploy", "--data", "stage_only=true")))


def _deploy(fleet: Fleet) -> None:
    _refuse_failed(fleet.clone.deploy())


def _refuse_failed(done: Done) -> None:
    if done.code != 0:
        raise SystemExit(done.text)


def _at_start(fault: str, marker: str) -> Callable[[Fleet], AbstractContextManager[None]]:
    return lambda fleet: faults.at_start(fleet, SERVER, fault, marker)


CONTROLS = (
    Control("control-dies", "unit exits at once", _at_start("dies", QUANT_MARK), NEW_QUANT),
    Control("control-hangs", "completions hang", _at_start("hangs", QUANT_MARK), NEW_QUANT),
    Control("control-gibberish", "gibberish replies", lambda _: nullcontext(), GIBBERISH_MODEL),
    Control("control-slow", "half the tokens/s", _at_start("slow", QUANT_MARK), NEW_QUANT),
    Control("control-squatter", "port squatter", _at_start("squatted", QUANT_MARK), NEW_QUANT),
    Control(
        "control-wrong-binary", "binary of another architecture",
        _at_start("wrong_binary", ENGINE_MARK), NEW_ENGINE,
    ),
    Control(
        "control-missing-shard", "missing shard", _at_start("missing_shard", QUANT_MARK), NEW_QUANT
    ),
)  # fmt: skip
