"""Compare the tokens/s of a server with the baseline of its profile."""

import math
import secrets
import statistics
from functools import partial

from corral_host import engines
from corral_host.checks import baseline
from corral_host.checks.welch import KEPT, OPEN, SLOWER, is_narrow, verdict
from corral_host.instance.gate_rows import gate_plan, row
from corral_host.server.http import first_key
from corral_host.server.probe_client import (
    ROUTE_SECONDS,
    ask,
    limit_seconds,
    refuse_other,
    timed,
)
from corral_host.system.commands import HostError

# Each word is at least one token in any vocabulary; random ones make a prompt that no cache has.
WORDS = (
    *("and", "river", "seven", "light", "under", "paper", "often", "stone", "music", "north"),
    *("garden", "because", "window", "never", "copper", "answer", "letter", "winter", "bridge"),
    *("little", "hundred", "quiet", "market", "silver", "engine", "morning", "yellow", "captain"),
    *("island", "teacher", "across", "forest", "number", "simple", "orange", "doctor", "between"),
)


def speed(instance):
    """Measure until the result is certain; undecided after the last run is failed."""
    plan, known = gate_plan(instance)["speed"], baseline.samples(instance)
    measured = {}
    # The first run warms the server up and does not count.
    measure(instance, min(plan["prompt_tokens"]), plan["generated_tokens"])
    for run in range(1, plan["max_runs"] + 1):
        for tokens in plan["prompt_tokens"]:
            found = measure(instance, tokens, plan["generated_tokens"])
            for name, per_second in found.items():
                measured.setdefault(f"{name} at {tokens}", []).append(per_second)
        if run >= plan["runs"]:
            verdicts = judged(measured, known, plan["epsilon"], run == plan["max_runs"])
            if OPEN not in verdicts.values() or SLOWER in verdicts.values():
                break
    baseline.note(instance, measured)
    return outcome(instance, measured, known, verdicts)


def judged(measured, known, epsilon, last):
    """A verdict for each measure; without a baseline, OPEN until the samples make a good one."""
    return {
        name: verdict(found, known[name], epsilon, last)
        if name in known
        else (KEPT if last or is_narrow(found, epsilon) else OPEN)
        for name, found in measured.items()
    }


def outcome(instance, measured, known, verdicts):
    epsilon, runs = gate_plan(instance)["speed"]["epsilon"], len(next(iter(measured.values())))
    limit = f"{1 - epsilon:.0%} of {figures(known)}" if known else "none yet: these become it"
    ok = all(one == KEPT for one in verdicts.values())
    detail = f"{runs} runs" if ok else why(instance, measured, known, verdicts)
    return row("speed", ok, figures(measured), limit, detail)


def figures(samples):
    means = {name: statistics.fmean(found) for name, found in samples.items()}
    shown = [f"{mean:.{0 if mean >= 100 else 1}f} {name}" for name, mean in means.items()]
    return f"{', '.join(shown)} tokens/s"


def why(instance, measured, known, verdicts):
    bad = [
        f"{name}: {share(measured[name], known[name])}, "
        + ("too slow" if found == SLOWER else "the spread is too wide to tell")
        for name, found in verdicts.items()
        if found != KEPT
    ]
    runs = len(next(iter(measured.values())))
    return (
        f"{'; '.join(bad)}, after {runs} runs. Next: if that is meant, "
        f"`corral baseline HOST/{instance['name']} --forget`, then deploy again"
    )


def share(new, old):
    return f"{statistics.fmean(new) / statistics.fmean(old):.1%} of the baseline"


def measure(instance, tokens, generated):
    """Tokens/s of one prompt that is in no cache, and of its answer."""
    words = [secrets.choice(WORDS) for _ in range(tokens)]
    found = engines.of(instance).speeds(
        partial(answered, instance), partial(events, instance), words, tokens, generated,
        limit_seconds,
    )  # fmt: skip
    return {name: checked(per_second) for name, per_second in found.items()}


def answered(instance, route, body, seconds=ROUTE_SECONDS):
    code, text = ask(instance, route, body, first_key(instance), seconds)
    refuse_other(code, text)
    return text


def events(instance, route, body, seconds):
    return timed(instance, route, body, first_key(instance), seconds)


def checked(per_second):
    if not (per_second and math.isfinite(per_second) and per_second > 0):
        raise HostError(f"the server reports {per_second} tokens/s")
    return per_second
