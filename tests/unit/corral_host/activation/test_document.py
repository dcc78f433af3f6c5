"""An activation on disk: a helper of another version settles it after an upgrade."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

activation = helper_module("activation.activation")
journal = helper_module("activation.journal")

PLAN = {
    "name": "chat", "folder": "/s/instances/chat", "unit": "corral-chat.service",
    "unit_path": "/u/corral-chat.service", "activation": {"drain_seconds": 30},
}  # fmt: skip
REPORT = {"instance": "chat", "from": "a", "to": "b", "how": "side by side", "run": "r1"}
PATHS = {"units": "/u", "state": "/s", "helper": "/h.pyz", "keys": "/k"}
# The document of the first helpers with activations; keys, rekeyed and reserves came later.
WRITTEN = {
    "folder": "/s/instances/chat", "unit": "corral-chat.service",
    "unit_path": "/u/corral-chat.service", **PATHS, "instance": "chat",
    "job": "corral-job-activate-chat.service", "from": "a", "to": "b", "how": "side by side",
    "kept": False, "boot_id": "boot", "invocation": "i1", "before": {"name": "chat"},
    "after": PLAN, "onward": {"zone": 7}, "report": REPORT, "rekeyed": True, "reserves": [8051],
    "proved": None,
}  # fmt: skip


def made() -> Any:
    return activation.Activation(
        {"instance": PLAN, "paths": PATHS, "drained": True, "confirm": True, "rollout": None},
        REPORT, previous={"name": "chat"}, invocation="i1", boot_id="boot", onward={"zone": 7},
        reserves=(8051,),
    )  # fmt: skip


def test_its_names_on_the_disk_stay() -> None:
    assert json.loads(json.dumps(made().document())) == WRITTEN


def test_what_is_read_is_what_was_written() -> None:
    assert activation.from_document(WRITTEN).document() == WRITTEN


@pytest.mark.parametrize("later", ["keys", "rekeyed", "reserves", "onward", "proved"])
def test_one_of_an_earlier_helper_is_read(later: str, tmp_path: Any) -> None:
    earlier = {key: value for key, value in WRITTEN.items() if key != later}
    (tmp_path / journal.JOURNAL).write_text(json.dumps(earlier))
    found = journal.load(tmp_path)
    assert (found.name, found.old, found.new, found.how) == ("chat", "a", "b", "side by side")
    assert (found.plan, found.previous, journal.run_of(tmp_path)) == (PLAN, {"name": "chat"}, "r1")
    assert (found.job_unit, found.paths["units"]) == ("corral-job-activate-chat.service", "/u")


def test_one_that_was_decided_is_kept_on_the_disk_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "as_kept", lambda _: "{}")
    folder = tmp_path / "chat"
    (folder / "generations" / "b").mkdir(parents=True)
    one = made()
    one.spec["instance"] = {**PLAN, "folder": str(folder)}
    one.proved = "i2"
    journal.decide_to_keep(one)
    assert journal.load(folder).kept
    assert not one.kept
