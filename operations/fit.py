"""The proof that instances fit, on their host, once its engines are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.host.fit_verdict import Verdict, refusals
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.remote.unreached import UnreachedError
from corral.sources.hub_token import operator_token
from operations import Commands
from operations.connection import AGAIN, helper_on
from operations.messages import complain, inform

_VERDICTS = TypeAdapter(list[Verdict])


@operation()
def proof(plan: HostPlan, *, waiting: Sequence[InstancePlan]) -> Commands:
    """Count what instances need with the engine's own program, on their headers; stop if too much.

    + waiting: those that do not serve their planned generation; the others are counted beside them.
    """
    if not waiting:
        host.noop("all instances serve their planned generation")
        return
    names = [instance.name for instance in waiting]
    document = {**json.loads(plan.to_helper()), "waiting": names}
    yield FunctionCommand(prove, (plan.paths.helper, document), {})


def prove(state: State, host: Host, helper: str, document: dict[str, Any]) -> bool:  # noqa: ARG001
    """Print a line for each instance and device; False unless every instance fits.

    + document: a plan with ``waiting``, the names of instances to prove.
    """
    # Not in the arguments, which are shown.
    gated = any(shard["gated"] for shard in document.get("shards", ()))
    sent = json.dumps({**document, "token": operator_token() if gated else None})
    try:
        verdicts = helper_on(host, helper).ask(["prove"], _VERDICTS, sent)
    except UnreachedError:
        return _fail(host, ["connection lost, or the proof was killed", f"  Next: {AGAIN}"])
    except CorralError as error:
        return _fail(host, str(error).splitlines())
    for line in (line for verdict in verdicts for line in verdict.lines()):
        inform(line, host)
    return _fail(host, refusals(verdicts, document["waiting"]))


def _fail(host: Host, lines: list[str]) -> bool:
    """Print the lines as errors; True where there are none."""
    for line in lines:
        complain(line, host)
    return not lines
