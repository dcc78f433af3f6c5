"""The outcome of a gate: a row for each part, with its figure and its limit."""

from corral_host.system.commands import HostError

# Of a plan that was staged before there were gates.
NO_GATE = {"golden": [], "speed": None, "perplexity": None, "soak_seconds": 0}


class GateFailed(HostError):  # noqa: N818 - what its callers call it
    """A part of the gate failed. ``rows``: all parts, those after it with ``ok`` None."""

    def __init__(self, message, rows):
        super().__init__(message)
        self.rows = rows


def row(part, ok, figure, limit, detail=""):
    return {"part": part, "ok": ok, "figure": figure, "limit": limit, "detail": detail}


def not_asked(part):
    return row(part, None, "", "", "not asked")


def gate_plan(instance):
    """What the plan asks for beyond an answer."""
    return {**NO_GATE, **(instance.get("gate") or {})}


def told(fault):
    """A fault as one line."""
    text = str(fault) if isinstance(fault, HostError) else f"{type(fault).__name__}: {fault}"
    return text.splitlines()[0] if text else type(fault).__name__
