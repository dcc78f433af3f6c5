"""The job of `corral tune`: servers that are started, asked and ended, one after the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.unit.corral_host.bench.test_measure import HostError, Machine, machine
from tests.unit.helper_modules import helper_module

tune = helper_module("bench.tune")
__all__ = ["machine"]

SERVER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass

    def do_GET(self):
        self.answer("{}")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        keys = open(sys.argv[2]).read().split()
        assert self.headers["Authorization"].split()[1] in keys
        assert len(asked["prompt"]) in (8, 32)
        tokens = [{"choices": [{"text": "a"}]}] * asked["max_tokens"]
        tokens.append({"choices": [], "usage": {"completion_tokens": asked["max_tokens"]}})
        self.answer("".join(f"data: {json.dumps(one)}\\n\\n" for one in tokens))

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def spec(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two settings: a server that answers, and one that fails at once."""
    monkeypatch.setattr(tune, "tokens", lambda _: [7, 8, 9])
    monkeypatch.setattr(tune, "refuse_started", lambda *_: None)
    (server := machine.root / "server.py").write_text(SERVER)
    key_file = str(machine.root / "tune-keys")
    port = free_port()
    serves = [sys.executable, str(server), str(port), key_file]
    fails = [sys.executable, "-c", "raise SystemExit('no room for a cache')"]
    need = machine.spec()["instances"][0]["need"]
    common = {"environment": {"A": "7"}, "need": need, "ready_seconds": 30}
    policy = ["NUMAPolicy=interleave", "NUMAMask=all"]
    return {
        **machine.spec(), "commands": [], "order": [0, 1, 0], "limit_seconds": 60,
        "servers": [
            {**common, "argv": serves, "properties": policy},
            {**common, "argv": fails, "properties": []},
        ],
        "requests": {
            "port": port, "key_file": key_file, "health": "/health", "alias": "chat",
            "lengths": [8, 32], "answer_tokens": 4, "concurrency": 2, "repeat": 1, "fields": {},
            "seconds": 10,
        },
    }  # fmt: skip


def test_each_run_has_its_figures_or_its_fault(machine: Machine, spec: dict[str, Any]) -> None:
    answer = tune.tune(spec)
    first, failed, last = answer["runs"]
    assert [run["server"] for run in answer["runs"]] == [0, 1, 0]
    for run in (first, last):
        assert [one["prompt_tokens"] for one in run["figures"]["lengths"]] == [8, 32]
        assert run["figures"]["load"]["requests"] == 2
        assert run["error"] == ""
    assert failed["figures"] is None
    assert "no room for a cache" in failed["error"]
    assert first["at_seconds"] <= failed["at_seconds"] <= last["at_seconds"]
    assert [line for line in machine.commands if "bench" not in line] == [
        "stop corral-chat.service",
        "reset-failed corral-chat.service",
        "start corral-chat.service",
    ]


def test_a_run_is_in_a_unit_as_a_deploy_writes_it(machine: Machine, spec: dict[str, Any]) -> None:
    tune.tune(spec)
    lines = (machine.root / "run.log").read_text().splitlines()
    with_policy, without = [line for line in lines if line.startswith("--pipe")][:2]
    for said in ("--property=NUMAPolicy=interleave", "--property=NUMAMask=all", "--setenv=A=7"):
        assert said in with_policy
    assert "--property=PrivateNetwork=yes" in without
    assert "NUMAPolicy" not in without


def test_a_current_setting_that_does_not_serve_ends_all_and_the_server_is_back(
    machine: Machine, spec: dict[str, Any]
) -> None:
    spec["servers"].reverse()
    with pytest.raises(HostError, match="its current settings do not serve in a run"):
        tune.tune(spec)
    assert machine.commands[-1] == "start corral-chat.service"
    assert not (machine.root / "benching.json").exists()


def test_beside_the_server_each_setting_must_have_room(
    machine: Machine, spec: dict[str, Any]
) -> None:
    host = {**spec["servers"][1]["need"]["host"], "compute_mib": 99_999}
    spec["servers"][1]["need"] = {"gpus": [], "host": host, "unknown": ""}
    with pytest.raises(HostError, match="no room beside the server: host memory has 2000 MiB"):
        tune.tune({**spec, "where": "beside"})
    assert machine.commands == []
    answer = tune.tune({**spec, "where": "beside", "order": [0]})
    assert answer["where"] == "beside"
    assert machine.commands == []


def test_the_state_of_the_machine_is_kept_with_each_run(
    machine: Machine, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for zone, text in (("thermal_zone0", "41000"), ("thermal_zone1", "66000")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "temp").write_text(text)
    monkeypatch.setattr(tune, "TEMPERATURES", tmp_path)
    cards = [
        {"index": str(n), "uuid": f"GPU-{n}", "clock_sm_mhz": 1980.0, "temperature_celsius": 30 + n}
        for n in range(2)
    ]
    monkeypatch.setattr(tune, "figures", lambda: (cards, []))
    spec["instances"][0]["gpus"] = ["GPU-1"]
    found = tune.moment(spec["instances"][0])
    assert found["cpu_celsius"] == 66
    assert [(one["index"], one["temperature_celsius"]) for one in found["gpus"]] == [("1", 31)]
    assert tune.moment({"gpus": []})["gpus"] == []
    assert machine.commands == []
