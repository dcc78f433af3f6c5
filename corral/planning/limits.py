"""Time limits of an activation, after which its host settles it. Pure.

The host arms a timer with the limit, and the controller follows the activation for as long.
"""

from __future__ import annotations

from corral.plan.gate import GatePlan, SpeedGate
from corral.plan.instance import ActivationPlan

# Requests of a gate, and the measurement of tokens per second.
_GATE_SECONDS = 180
# A tool call or reasoning: 256 tokens each.
_PARSER_SECONDS = 120
_SPEED_SECONDS = 900
# And beyond prompts of this length, for each run: the slowest GPU hosts read so many tokens/s.
_LONG_TOKENS, _TOKENS_PER_SECOND = 8192, 100
# A perplexity run, beside the time to load: files/corral_host/checks/perplexity.py.
_READING_SECONDS = 1800
# A revert waits this long for an obstacle, such as a program on the port or an unplugged cable:
# files/corral_host/activation/start_again.py.
_OBSTACLE_SECONDS = 300
# Commands of systemd, and writing the journal.
_MARGIN_SECONDS = 60
# Starts of servers, each with a stop: in place the new one and, if it fails, the old one; side by
# side the new one twice.
_STARTS, _STARTS_SIDE_BY_SIDE = 2, 3


def limited(
    plan: ActivationPlan, *, ready_seconds: int, stop_seconds: int, gate: GatePlan
) -> ActivationPlan:
    """The plan with its limits: longer than an activation and its revert can take.

    + ready_seconds, stop_seconds: for one start and one stop of a server, new or old
    """
    each = ready_seconds + stop_seconds + _gate_seconds(gate, ready_seconds)
    waits = 2 * plan.drain_seconds + plan.confirm_seconds + _OBSTACLE_SECONDS + _MARGIN_SECONDS
    limits = {
        "limit_seconds": _STARTS * each + waits,
        "side_by_side_limit_seconds": _STARTS_SIDE_BY_SIDE * each + waits,
    }
    return plan.model_copy(update=limits)


def _gate_seconds(gate: GatePlan, ready_seconds: int) -> int:
    speed = _speed_seconds(gate.speed) if gate.speed else 0
    perplexity = ready_seconds + _READING_SECONDS if gate.perplexity else 0
    parsers = _PARSER_SECONDS * (gate.tool_call + gate.reasoning)
    return _GATE_SECONDS + gate.soak_seconds + speed + perplexity + parsers


def _speed_seconds(speed: SpeedGate) -> int:
    beyond = sum(max(0, tokens - _LONG_TOKENS) for tokens in speed.prompt_tokens)
    return _SPEED_SECONDS + speed.max_runs * beyond // _TOKENS_PER_SECOND
