"""The outcome of a gate: a row for each probe, with its figure and its limit."""

from corral_host.system.commands import HostError

# For a plan that was staged before there were gates.
NO_GATE = {
    "golden": [], "speed": None, "perplexity": None, "soak_seconds": 0, "tool_call": False,
    "reasoning": False,
}  # fmt: skip


class GateFailed(HostError):  # noqa: N818 - what its callers call it
    """A probe of the gate failed. ``rows``: of all probes; ``ok`` is None for those after it."""

    def __init__(self, message, rows):
        super().__init__(message)
        self.rows = rows


def row(part, ok, figure, limit, detail=""):
    return {"part": part, "ok": ok, "figure": figure, "limit": limit, "detail": detail}


def not_asked(part):
    return row(part, None, "", "", "not asked")


def gate_plan(instance):
    """The gate of a plan; a plan of an earlier version may have none."""
    return {**NO_GATE, **(instance.get("gate") or {})}


def first_line(fault):
    """A fault as one line."""
    text = str(fault) if isinstance(fault, HostError) else f"{type(fault).__name__}: {fault}"
    return text.splitlines()[0] if text else type(fault).__name__
