"""The command over two hosts: `odd` answers as a test says, `well` answers well."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.plan.host import HostPlan
from corral.plan.instance import INSTANCE_FILES
from corral.planning.load import load_planner
from corral.remote import client
from lab.odd_host import Answer, OddHosts
from tests.samples import CHAT, ROOT, bare, host
from tests.unit.cli.test_cli import Corral, Said

SITE = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001, "address": "0.0.0.0"}
gate = {"aliases": {"tiny-glm-moe": {"port": 8000}}, "trusted_networks": ["10.0.0.1"]}
reached = {"member_address": "10.0.0.1"}
servers = [
    (name, {"instances": [chat], "gateway": gate, "keys_folder": "keys", **reached})
    for name in ("odd", "well")
]
"""
COMMANDS = [
    ("status",), ("verify",), ("verify", "--rehash"), ("history", "odd", "well"),
    ("engine", "list"), ("gateway", "status"), ("baseline", "odd", "well"),
    ("baseline", "odd", "well", "--forget"),
]  # fmt: skip


@dataclass
class OddFleet:
    """As `corral`, with `ssh` replaced."""

    corral: Corral
    hosts: OddHosts

    def __call__(self, *words: str) -> Said:
        return self.corral(*words, "-i", "inventories/site.py")

    def plan(self, name: str) -> HostPlan:
        made = host({**CHAT, "profile": "tiny-chat"}, name=name)
        return load_planner(self.corral.root).plan_host(made)


def odd_hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    """Hosts whose answers are waited for as long as those of others."""
    found = OddHosts(folder)
    monkeypatch.setenv("PATH", found.path)
    return found


def give_up_after(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer for any answer. On a busy machine also a good host takes a second or two."""
    monkeypatch.setattr(client, "_SECONDS", seconds)
    monkeypatch.setattr(client, "_LONGER_SECONDS", {})
    monkeypatch.setattr("corral.gateway.control._ANSWER_SECONDS", seconds)


def odd_fleet(corral: Corral, hosts: OddHosts) -> OddFleet:
    (corral.root / "inventories" / "site.py").write_text(SITE)
    (corral.root / "files").symlink_to(ROOT / "files")
    fleet = OddFleet(corral, hosts)
    hosts.says("well", good(fleet.plan("well")))
    return fleet


def kept_document(plan: HostPlan) -> dict[str, Any]:
    """The plan of the first instance, as its host keeps it."""
    return plan.instances[0].model_dump(mode="json", exclude=set(INSTANCE_FILES))


def good(plan: HostPlan, said: str = "well") -> dict[str, Answer]:
    """What a host answers to each command; ``said`` stands wherever it is free to choose."""
    state = bare(plan).model_dump(mode="json")
    told = {"active": said, "sub": said, "since": said, "proved_generation": said}
    state["instances"]["chat"] |= told
    generation = plan.instances[0].generation
    report = {
        "host": plan.host, "instance": "chat", "at": said, "by": said, "from": said,
        "to": generation, "how": said, "outcome": "kept", "serving": said, "reason": said,
        "log": said, "phases": [{"phase": said, "seconds": 1}],
        "gate": [dict.fromkeys(("part", "figure", "limit", "detail"), said) | {"ok": True}],
    }  # fmt: skip
    row = {"engine": said, "key": said, "size_bytes": 2**20, "installed_at": said, "users": [said]}
    server = {"server": f"{plan.host}_chat", "pool": "tiny-glm-moe", "up": True, "admin": said,
              "weight": 100, "sessions": 0, "check": said, "until": said}  # fmt: skip
    kept = {"profile": said, "gpus": [], "lengths": [], "generated_tokens": 1,
            "samples": {said: [1, 2]}, "generation": said, "at": said}  # fmt: skip
    found = {
        "unit": said, "active": said, "sub": said, "pid": 1, "since": said, "health": said,
        "proved_generation": said, "running_generation": said, "model": said, "quant": said,
        "listening": [said], "plan": kept_document(plan),
    }  # fmt: skip
    # One that no inventory names.
    stranger = {} if said == plan.host else {said: found}
    answers: dict[str, Any] = {
        " state": state,
        " instances": {"instances": {"chat": found, **stranger}},
        " check": [{"instance": "chat", "check": said, "ok": True, "detail": said}],
        " rehash": [{"path": said, "ok": True, "detail": said}],
        " history": [report],
        " generation": {"plan": {"quant": said, "argv": ["x", f"--{said}", said]}},
        " releases": [row],
        " baselines": [
            {"instance": "chat", "baseline": kept, "problem": ""},
            {"instance": said, "baseline": None, "problem": said},
        ],
        " forget": {"forgotten": [said]},
        " gateway": {"servers": [server]},
        " unpin": {"unpinned": said, "name": said},
        " gpus": {"problem": said},
        " drift": [dict.fromkeys(("where", "planned", "found", "next_step"), said)],
    }  # fmt: skip
    return {word: Answer(json.dumps(answer).encode()) for word, answer in answers.items()}
