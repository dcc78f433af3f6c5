"""A server that hangs or serves from host memory is restarted, at last stopped, and recorded."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

rounds = helper_module("watch.rounds")
look = helper_module("watch.look")
measures = helper_module("watch.measures")
locks = helper_module("system.locks")
WATCHDOG = {"every_seconds": 60, "answer_seconds": 0.3, "failures": 2, "restarts": 2}


@dataclass
class Watched:
    """A host with one instance, `chat`: its server, systemd's view of it, and its GPU memory.

    + code: answer to a completion, 0 for none; + worked: its counter; + run: of its unit
    + processes: of nvidia-smi; + failure: of nvidia-smi
    """

    root: Path
    port: int = 0
    code: int = 200
    loading: bool = False
    worked: int = 0
    working: int = 0
    asked: int = 0
    active: bool = True
    frozen: bool = False
    began: float = field(default_factory=lambda: time.monotonic() - 10)
    run: int = 1
    used_mib: list[int | None] = field(default_factory=lambda: [4000])
    failure: str = ""
    commands: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> dict[str, Any]:
        chat = {"folder": str(self.root / "chat"), "watchdog": WATCHDOG}
        return {"instances": {"chat": chat}, "state": str(self.root), "records": str(self.records)}

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def record(self) -> Any:
        return measures.Record(self.records, "chat")

    def keep(self, **plan: Any) -> None:
        folder = self.root / "chat/current"
        folder.mkdir(parents=True, exist_ok=True)
        endpoint = {"address": "127.0.0.1", "port": self.port, "socket": None}
        document = {
            "name": "chat", "unit": "corral-chat.service", "kind": "llama.cpp", "alias": "tiny",
            "endpoint": endpoint, "key_path": str(self.root / "key"), "gpus": [0], "metrics": True,
            "ready_timeout_seconds": 300,
        }  # fmt: skip
        (folder / "plan.json").write_text(json.dumps({**document, **plan}))

    def show(self, *_: str) -> dict[str, str]:
        state = ("active", "running") if self.active else ("inactive", "dead")
        return {"ActiveState": state[0], "SubState": state[1], "InvocationID": str(self.run),
                "ActiveEnterTimestampMonotonic": str(int(self.began * 1e6)),
                "MainPID": str(os.getpid()) if self.active else "0"}  # fmt: skip

    def systemctl(self, _: str, verb: str, unit: str) -> None:
        assert unit == "corral-chat.service"
        self.commands.append(verb)
        self.active = verb == "restart"
        self.run += 1

    def smi(self) -> dict[str, Any]:
        processes = [{"pid": os.getpid(), "used_mib": used} for used in self.used_mib]
        return {"failure": self.failure, "problem": "gone", "gpus": [], "processes": processes}


def handler(state: Watched) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if state.frozen:
                state.released.wait()
            elif self.path == "/metrics":
                state.worked += state.working
                self.say(200, f"# HELP\nllamacpp:n_decode_total {state.worked}\nllamacpp:x 1\n")
            else:
                self.say(503 if state.loading else 404, "File Not Found")

        def do_POST(self) -> None:
            state.asked += 1
            if state.code == 0:
                state.released.wait()
                return
            self.say(state.code, json.dumps({"choices": [{"message": {"content": "a"}}]}))

        def say(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    state = Watched(tmp_path)
    (tmp_path / "key").write_text("a-key\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.port = server.server_port
    state.keep()
    monkeypatch.setattr(look, "show", state.show)
    monkeypatch.setattr(look, "processes_of", lambda _: set())
    monkeypatch.setattr(rounds.nvidia_smi, "ask", state.smi)
    monkeypatch.setattr(measures, "output", state.systemctl)
    monkeypatch.setattr(measures, "JOURNAL", str(tmp_path / "absent"))
    monkeypatch.setattr(measures, "say", state.said.append)
    monkeypatch.setattr(rounds, "loaded_key", lambda _: "a-key")
    monkeypatch.setattr(helper_module("server.listener"), "refuse_stranger", lambda *_: None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def memory_rounds(watched: Watched, count: int, seen: dict[str, Any] | None = None) -> None:
    seen = {} if seen is None else seen
    for _ in range(count):
        rounds.memory_round(watched.settings, seen)


def answer_rounds(watched: Watched, count: int) -> None:
    asked = rounds.Asked()
    for _ in range(count):
        rounds.answer_round(watched.settings, "chat", asked)


@pytest.mark.parametrize("used_mib", [[4000], [None], [0, 4000]])
def test_a_server_that_holds_gpu_memory_is_left_alone(
    watched: Watched, used_mib: list[int | None]
) -> None:
    watched.used_mib = used_mib
    memory_rounds(watched, 3)
    assert not watched.commands
    assert not watched.record.fault


@pytest.mark.parametrize("used_mib", [[], [0]])
def test_a_server_on_the_cpu_is_restarted_after_two_looks(
    watched: Watched, used_mib: list[int | None]
) -> None:
    watched.used_mib = used_mib
    memory_rounds(watched, 1)
    assert not watched.commands
    memory_rounds(watched, 2)
    assert watched.commands == ["restart"]
    assert "it holds no GPU memory" in watched.record.fault
    assert "restarted (1 of 2 within an hour)" in watched.said[-1]


def test_it_is_stopped_when_restarts_do_not_help_and_may_be_started_again(
    watched: Watched,
) -> None:
    watched.used_mib = []
    memory_rounds(watched, 10)
    assert watched.commands == ["restart", "restart", "stop"]
    assert "Next: see `corral logs`, fix the host, then `corral start chat`" in watched.record.fault
    watched.active, watched.used_mib, watched.run = True, [4000], 9
    answer_rounds(watched, 1)
    assert (watched.record.fault, watched.record.restarts) == ("", [])


def test_restarts_of_yesterday_do_not_count(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.used_mib = []
    memory_rounds(watched, 4)
    assert watched.commands == ["restart", "restart"]
    later = measures.time.time() + 3601
    monkeypatch.setattr(measures.time, "time", lambda: later)
    memory_rounds(watched, 2)
    assert watched.commands == ["restart"] * 3


@pytest.mark.parametrize("why", ["loading", "stopped", "an activation is at work", "no gpus"])
def test_a_server_that_is_not_to_be_judged_is_left_alone(watched: Watched, why: str) -> None:
    watched.used_mib, watched.code = [], 0
    watched.loading, watched.active = why == "loading", why != "stopped"
    if why == "no gpus":
        watched.keep(gpus=[])
        memory_rounds(watched, 3)
    elif why == "an activation is at work":
        with locks.held(locks.activate_lock(watched.root), "ada", "activating"):
            memory_rounds(watched, 3)
            answer_rounds(watched, 3)
    else:
        memory_rounds(watched, 3)
        answer_rounds(watched, 3)
    assert not watched.commands
    assert not watched.asked


@pytest.mark.parametrize(("node", "restarts"), [("/dev/nvidia0", 0), ("/dev/nvidiactl", 1)])
def test_without_nvidia_smi_the_open_nodes_of_a_process_tell(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, node: str, restarts: int
) -> None:
    watched.failure, watched.used_mib = "mismatch", []
    monkeypatch.setattr(look, "target", lambda *_: node)
    memory_rounds(watched, 2)
    assert len(watched.commands) == restarts


def test_a_server_that_hangs_is_restarted_after_so_many_failures(watched: Watched) -> None:
    watched.code = 0
    answer_rounds(watched, 1)
    assert not watched.commands
    answer_rounds(watched, 2)
    assert watched.commands == ["restart"]
    assert "no completion: /v1/chat/completions: no whole answer within 0.3 s, 2 times" in (
        watched.record.fault
    )


@pytest.mark.parametrize(("code", "restarts"), [(200, 0), (500, 1), (401, 0), (400, 0)])
def test_only_no_answer_and_an_error_of_the_server_are_failures(
    watched: Watched, code: int, restarts: int
) -> None:
    watched.code = code
    answer_rounds(watched, 2)
    assert len(watched.commands) == restarts


def test_one_answer_begins_the_count_again(watched: Watched) -> None:
    asked = rounds.Asked()
    for code in (500, 200, 500):
        watched.code = code
        rounds.answer_round(watched.settings, "chat", asked)
    assert not watched.commands


def test_a_busy_server_is_not_asked_and_a_long_queue_is_no_hang(watched: Watched) -> None:
    watched.code, watched.working = 0, 5
    asked = rounds.Asked()
    for _ in range(4):
        rounds.answer_round(watched.settings, "chat", asked)
    assert watched.asked == 1
    assert not watched.commands


def test_a_fault_is_cleared_once_it_serves_and_restarts_still_count(watched: Watched) -> None:
    watched.code = 500
    answer_rounds(watched, 2)
    assert watched.record.fault
    watched.code = 200
    answer_rounds(watched, 1)
    assert watched.record.fault == ""
    assert len(watched.record.restarts) == 1


def test_the_journal_names_the_unit_by_the_process(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with measures.socket.socket(measures.socket.AF_UNIX, measures.socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        monkeypatch.setattr(measures, "JOURNAL", str(tmp_path / "journal"))
        watched.used_mib = []
        memory_rounds(watched, 2)
        entry = journal.recv(65536).decode().splitlines()
    assert f"OBJECT_PID={os.getpid()}" in entry
    assert any(line.startswith("MESSAGE=chat: it holds no GPU memory") for line in entry)


def test_a_server_that_froze_is_restarted_and_one_that_loads_is_not(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(rounds, "WORK_SECONDS", 0.2)
    watched.frozen, watched.code = True, 0
    answer_rounds(watched, 3)
    assert not watched.commands, "it may load, as a server of ik_llama.cpp is silent then"
    asked = rounds.Asked()
    watched.frozen, watched.code = False, 200
    rounds.answer_round(watched.settings, "chat", asked)
    watched.frozen, watched.code = True, 0
    for _ in range(2):
        rounds.answer_round(watched.settings, "chat", asked)
    assert watched.commands == ["restart"]


def test_a_server_that_froze_before_the_first_look_is_restarted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(rounds, "WORK_SECONDS", 0.2)
    watched.frozen, watched.code, watched.began = True, 0, time.monotonic() - 301
    answer_rounds(watched, 2)
    assert watched.commands == ["restart"]


def test_a_host_without_its_address_restarts_no_server(watched: Watched) -> None:
    """The cable is pulled: no restart would help, and after the last one the server is stopped."""
    asked = rounds.Asked()
    rounds.answer_round(watched.settings, "chat", asked)
    assert watched.asked == 1
    # An address for documentation (RFC 5737), which no machine has.
    watched.keep(endpoint={"address": "192.0.2.1", "port": watched.port, "socket": None})
    for _ in range(5):
        rounds.answer_round(watched.settings, "chat", asked)
    assert watched.commands == []
    watched.keep()
    watched.code = 500
    for _ in range(2):
        rounds.answer_round(watched.settings, "chat", asked)
    assert watched.commands == ["restart"]
