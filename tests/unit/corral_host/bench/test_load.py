"""The helper's side of a load test: facts, a program of the engine, its end with the controller."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.unit.corral_host.bench.test_measure import Machine, machine
from tests.unit.helper_modules import helper_module
from tests.unit.streaming_server import streaming

pytestmark = pytest.mark.slow

__all__ = ["machine"]

load = helper_module("bench.load")
HostError = helper_module("system.commands").HostError

KEY = "a-key-of-more-than-twenty-characters"
# Writes what it got as its figures; "until" makes it wait for a file.
PROGRAM = """
import json, os, sys, time, urllib.request
from pathlib import Path
arguments = sys.argv[1:]
print("a line of its own")
if arguments[0] == "until":
    Path(arguments[1]).with_name("began").touch()
    while not Path(arguments[1]).exists():
        time.sleep(0.02)
if arguments[0] == "fail":
    sys.exit("no such model")
answer = ""
if arguments[0] == "ask":
    shown = {"Authorization": "Bearer " + os.environ["A_KEY"]}
    asked = urllib.request.Request(arguments[1], headers=shown)
    answer = urllib.request.urlopen(asked).read().decode()
shown = Path("/proc/self/environ").read_text() + " ".join(sys.argv)
Path(os.environ["FIGURES"]).write_text(json.dumps({
    "completed": 2, "key": os.environ["A_KEY"][::-1], "hidden": os.environ["A_KEY"] not in shown,
    "generated_texts": ["x"], "errors": ["", "Traceback:\\n  File x\\nTimeoutError: late"],
    "output_lens": [3, 0], "answer": answer, "name": __name__,
}))
"""


@pytest.fixture
def spec(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A document of `load`, with a release that has a module `loads`."""
    given = machine.spec()
    given["commands"] = []
    given["instances"][0] |= {
        "kind": "llama.cpp", "metrics": True,
        "endpoint": {"address": "0.0.0.0", "port": 8001, "socket": None},
    }  # fmt: skip
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "loads.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("FIGURES", str(tmp_path / "figures.json"))
    monkeypatch.setattr(load, "loaded_key", lambda _: KEY)
    monkeypatch.setattr(load, "show", lambda *_: {"User": "corral-chat"})
    return given


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a llama-server."""

    def call(_: Any, __: str, path: str, body: Any, key: str, **___: Any) -> tuple[int, str]:
        assert key == KEY
        if path == "/tokenize":
            return 200, json.dumps({"tokens": [ord(one) for one in body["content"]]})
        return 200, "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"

    monkeypatch.setattr(load, "call", call)


class Controller:
    """The other end of the helper's standard input, and what the helper has printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading, self.writing = os.pipe()
        self.enough, self.found = 0, list[dict[str, Any]]()
        monkeypatch.setattr(load, "tell", self.tell)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(self.reading, "rb", 0)))

    def send(self, document: Any = "") -> None:
        os.write(self.writing, (json.dumps(document) if document else "").encode() + b"\n")

    def tell(self, answer: dict[str, Any]) -> None:
        self.found.append(json.loads(json.dumps(answer)))
        if len(self.found) == self.enough:
            self.hang_up()

    def hang_up(self) -> None:
        os.close(self.writing)

    def answers(self, spec: dict[str, Any], number: int) -> list[dict[str, Any]]:
        """The first answers to a document, after which it hangs up."""
        self.enough = number
        load.load(spec)
        return self.found


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(monkeypatch)


def question(*arguments: str, limit_seconds: int = 60) -> dict[str, Any]:
    return {
        "python": sys.executable, "module": "loads", "arguments": arguments,
        "key_variable": "A_KEY", "result_file": os.environ["FIGURES"],
        "limit_seconds": limit_seconds,
    }  # fmt: skip


@pytest.mark.usefixtures("server")
def test_facts_are_what_prompts_and_results_need(
    spec: dict[str, Any], controller: Controller
) -> None:
    (found,) = controller.answers(spec, 1)
    assert found["held"] is True
    assert (found["in_flight"], found["commit"], found["gpus"]) == (3, "c0ffee", [])
    assert found["url"] == "http://127.0.0.1:8001"
    # Each token once: letters, and what is between words.
    assert sorted(found["tokens"]) == found["tokens"]
    assert set(found["tokens"]) == {ord(one) for one in "abcdefghijklmnopqrstuvwxyz "}


@pytest.mark.usefixtures("server")
def test_an_engines_program_gets_the_key_by_a_pipe_alone(
    spec: dict[str, Any], controller: Controller, machine: Machine
) -> None:
    controller.send(question("well"))
    ran = controller.answers(spec, 2)[1]["ran"]
    assert (ran["completed"], ran["name"]) == (2, "__main__")
    assert (ran["key"], ran["hidden"]) == (KEY[::-1], True)
    # Texts of a model stay on the host; of a failure its last line is enough.
    assert "generated_texts" not in ran
    assert (ran["errors"], ran["output_lens"]) == (["", "TimeoutError: late"], [3, 0])
    command = (machine.root / "run.log").read_text()
    assert KEY not in command
    for option in (
        "--unit=corral-load-chat.service", "DynamicUser=yes", "RuntimeMaxSec=60", "--setenv=A=1",
    ):  # fmt: skip
        assert option in command
    assert "PrivateNetwork=yes" not in command


@pytest.mark.usefixtures("server")
def test_a_server_on_a_socket_is_reached_by_a_relay_as_its_own_user(
    spec: dict[str, Any],
    controller: Controller,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "RELAY_PORT", free_port())
    path = tmp_path / "s"
    spec["instances"][0]["endpoint"] = {"address": None, "port": None, "socket": str(path)}
    with streaming(path):
        url = load.url(spec["instances"][0])
        controller.send(question("ask", f"{url}/v1/models"))
        found = controller.answers(spec, 2)[1]
    assert '"id": "tiny"' in found["ran"]["answer"]
    command = (machine.root / "run.log").read_text()
    assert "--property=User=corral-chat" in command
    assert "--property=PrivateNetwork=yes" in command


@pytest.mark.usefixtures("server")
def test_a_program_that_fails_is_told_in_its_words_and_the_next_one_runs(
    spec: dict[str, Any], controller: Controller
) -> None:
    controller.send(question("fail"))
    controller.send(question("well"))
    _, failed, ran = controller.answers(spec, 3)
    assert "loads did not end within 60 s, or failed (1)" in failed["fault"]["what"]
    assert "no such model" in failed["fault"]["what"]
    assert ran["ran"]["completed"] == 2


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("gone", ["hangs up", "is silent"])
def test_without_its_controller_the_program_ends(
    spec: dict[str, Any],
    controller: Controller,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
) -> None:
    if gone == "is silent":
        monkeypatch.setattr(load, "SILENCE_SECONDS", 1)
    controller.send(question("until", str(tmp_path / "never")))
    thread = after(lambda: (tmp_path / "began").exists(), controller.hang_up)
    if gone == "hangs up":
        thread.start()
    # Returns, although the program waits for ever.
    fault = controller.answers(spec, 0)[1]["fault"]["what"]
    assert ("has ended the load test" if gone == "hangs up" else "has fallen silent") in fault
    assert machine.commands[-1] == "stop corral-load-chat.service"


def after(happened: Callable[[], bool], work: Callable[[], None]) -> threading.Thread:
    def wait() -> None:
        while not happened():
            threading.Event().wait(0.02)
        work()

    return threading.Thread(target=wait, daemon=True)


@pytest.mark.usefixtures("server")
def test_one_at_a_time_with_benchmarks(spec: dict[str, Any]) -> None:
    other = helper_module("bench.measure").only_one({**spec, "instance": "long"})
    with other, pytest.raises(HostError, match="a benchmark of long runs on this host"):
        load.load(spec)


@pytest.mark.usefixtures("server")
def test_a_server_that_does_not_run_or_serves_another_generation_is_refused(
    spec: dict[str, Any], machine: Machine
) -> None:
    machine.serves = False
    with pytest.raises(HostError, match="does not serve generation g"):
        load.load(spec)
    machine.active = "failed"
    with pytest.raises(HostError, match="does not run .failed, dead.*corral start node-1/chat"):
        load.load(spec)
