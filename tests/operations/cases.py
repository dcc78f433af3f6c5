"""Parts of the JSON cases of operations: samples by name, and commands as JSON.

A case says ``"sample:chat"`` for the object below; what an operation yields is shown with the same
names, so that a case has only what it tests. ``{"...": "sample:plan", "waiting": []}``
is a document with everything of that sample and more.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra_testing.util import parse_value  # type: ignore[import-untyped]

from corral.catalog.drivers import KEYRING_FILE
from corral.findings import Finding
from corral.gateway.files import GatewayFiles
from corral.nvidia.decision import GpuDecision, decide
from corral.offline.deploy import APT_CONFIG, AptFiles
from corral.plan.instance import TrialPlan
from corral.schema import Frozen
from corral.smoke_model.fixture import SmokeModel
from corral.store.api_keys import KeyFile
from corral.store.engine_archives import ArchiveStore
from operations import trial
from operations.current_operator import CurrentOperator
from operations.engine import Supply
from operations.instance import Leaving
from tests.gpu_samples import bare_cards, gpu_plan
from tests.samples import CHAT, LONG, bare, host, plan, planner

_PREFIX = "sample:"
_GATEWAY = {
    "aliases": {"small": {"port": 8000, "may_differ": ["context", "slots"]}},
    "address": "10.0.0.1",
    "trusted_networks": ["10.0.0.0/24"],
}


_TRIED = TrialPlan(unit="corral-job-trial.chat.service", socket="/run/s", argv=("python", "dummy"))


def is_due(_: str) -> bool:
    """Every release is to be built by this host."""
    return True


def settled(_: str) -> bool:
    """Every server serves its plan."""
    return True


def finish() -> None:
    """Nothing is left to do."""


@functools.cache
def samples() -> dict[str, Any]:
    planned, on_gpus = plan(CHAT, LONG), gpu_plan()
    chat, long = planned.instances
    gateway_host = host(CHAT, gateway=_GATEWAY)
    gateway = planner().gateways([gateway_host])["lab-1"]
    return {
        "plan": planned,
        "plan with gateway": planned.model_copy(update={"gateway": gateway}),
        "plan with gpus": on_gpus,
        "plan with monitoring": planner().plan_host(host(CHAT, monitoring={})),
        "chat": chat,
        "long": long,
        "release": planned.releases[0],
        "shard": planned.shards[0],
        "paths": planned.paths,
        "keys": {
            "chat": KeyFile(path="/keys/chat", text="key of chat\n"),
            "long": KeyFile(path="/keys/long", text="key of long\n"),
        },
        "leaving": Leaving(("old",)),
        "nobody leaves": Leaving(()),
        "operator": CurrentOperator(state="/var/lib/corral", rollout="r1"),
        "supply": Supply(planned.paths, ArchiveStore(Path("/nowhere"))),
        "gateway files": GatewayFiles(generation="ab12", files={"upstream": "key of chat"}),
        "host": host(CHAT, LONG),
        "finding": Finding(what="the disk is too small", next_step="free space there"),
        "decision": decide(on_gpus, bare(on_gpus, gpu_host=bare_cards())),
        "no decision": GpuDecision(),
        "apt files of a bundle": AptFiles({"/etc/corral/apt/bundle.conf": "settings\n"}),
        "archive": b"PK",
        "traffic": object(),
        "templates": Path("/templates"),
        "is_due": is_due,
        "settled": settled,
        "finish": finish,
        "tried": chat.model_copy(update={"trial": _TRIED}),
        "report of a trial": trial.report,
    }


def read(value: Any) -> Any:
    """A value of a case, with samples in place of their names."""
    if isinstance(value, str) and value.startswith(_PREFIX):
        return samples()[value.removeprefix(_PREFIX)]
    if isinstance(value, list):
        return [read(one) for one in value]
    if isinstance(value, dict):
        return {name: read(one) for name, one in value.items()}
    return parse_value(value)


def shown(commands: Sequence[PyinfraCommand | str]) -> list[Any]:
    """Commands in the form of a case: a line, a line with its standard input, or a call."""
    return [_shown(command) for command in commands]


def _shown(command: PyinfraCommand | str) -> Any:
    if isinstance(command, FunctionCommand):
        assert not command.kwargs
        return [command.function.__name__, *map(_named, command.args)]
    line = command if isinstance(command, str) else _line(command)
    stdin = "" if isinstance(command, str) else str(command.connector_arguments.get("_stdin", ""))
    return {"command": line, "stdin": _named_text(stdin)} if stdin else line


def _line(command: PyinfraCommand) -> str:
    assert isinstance(command, StringCommand)
    return command.get_masked_value()


def _named(value: Any) -> Any:
    for name, sample in samples().items():
        if value is sample or (isinstance(value, Frozen) and value == sample):
            return f"{_PREFIX}{name}"
    if isinstance(value, (list, tuple)):
        return [_named(one) for one in value]
    return _named_document(value)


def _named_text(text: str) -> Any:
    if text == base64.b64encode(SmokeModel().content()).decode():
        return "base64: the model that new releases are tried on"
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict) and "at" in document:
        assert datetime.fromisoformat(document.pop("at"))
        assert document.pop("by")
    return _named_document(document)


def _named_document(value: Any) -> Any:
    if isinstance(value, list):
        return [_named_document(one) for one in value]
    if not isinstance(value, dict):
        return value
    for name, document in _documents().items():
        if value == document:
            return f"{_PREFIX}{name}"
        if document.items() <= value.items():
            more = {key: one for key, one in value.items() if key not in document}
            return {"...": f"{_PREFIX}{name}", **_named_document(more)}
    return {name: _named_document(one) for name, one in value.items()}


@functools.cache
def _documents() -> dict[str, Any]:
    """Samples as the helper gets them."""
    plans = {n: json.loads(s.to_helper()) for n, s in samples().items() if n.startswith("plan")}
    own = {n: samples()[n].model_dump(mode="json") for n in ("chat", "long", "tried", "release",
           "shard", "paths", "decision", "operator")}  # fmt: skip
    decision = own["decision"]
    bundled = {
        **decision, "files": {**decision["files"], **samples()["apt files of a bundle"].files},
        "keyring": KEYRING_FILE, "apt_config": APT_CONFIG,
    }  # fmt: skip
    return {**plans, **own, "decision from a bundle": bundled}
