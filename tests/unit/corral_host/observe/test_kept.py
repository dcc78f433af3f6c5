"""What a host reports of its instances from its own records, without any plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from corral.host.answers import ObservedInstance, ObservedInstances
from tests.unit.helper_modules import helper_module

kept = helper_module("observe.kept")
PROGRAM = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1])); self.end_headers(); self.wfile.write(b"loading")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Health)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass
class Kept:
    """A host with one instance, `chat`, whose unit is a process of this test."""

    root: Path
    pid: int = 0

    @property
    def paths(self) -> dict[str, str]:
        return {"state": str(self.root / "state"), "units": str(self.root / "units")}

    def keep(self, generation: str, **plan: Any) -> None:
        folder = self.root / "state/instances/chat/generations" / generation
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps(plan))

    def install(self, generation: str) -> None:
        (self.root / "units").mkdir(exist_ok=True)
        unit = f"[Unit]\nX-Corral-Generation={generation}\n"
        (self.root / "units/corral-chat.service").write_text(unit)

    def show(self, unit: str, *_: str) -> dict[str, str]:
        assert unit == "corral-chat.service"
        active = "active" if self.pid else "inactive"
        return {"ActiveState": active, "SubState": "running", "MainPID": str(self.pid),
                "NRestarts": "2", "ActiveEnterTimestamp": "today"}  # fmt: skip

    def found(self) -> ObservedInstance:
        reported = json.loads(json.dumps(kept.instances(self.paths)))
        return TypeAdapter(ObservedInstances).validate_python(reported).instances["chat"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    made = Kept(tmp_path)
    monkeypatch.setattr(kept, "show", made.show)
    return made


@pytest.fixture(params=[200, 503])
def server(request: pytest.FixtureRequest, host: Kept) -> Iterator[tuple[int, int, list[str]]]:
    """The port of a server, what its /health answers, and its command line."""
    argv = [sys.executable, "-c", PROGRAM, str(request.param)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        host.pid = process.pid
        yield int(process.stdout.readline()), request.param, argv
        process.kill()


def test_a_running_instance_tells_where_it_listens_and_what_it_serves(
    host: Kept, server: tuple[int, int, list[str]]
) -> None:
    port, code, argv = server
    # The installed generation is not the running one, as nobody restarted the server.
    host.keep("new1", argv=["other"], model="large", quant="F16")
    host.keep("old1", argv=argv, model="small", quant="Q8_0")
    host.install("new1")
    found = host.found()
    assert found.listening == (f"http://127.0.0.1:{port}",)
    assert (found.running_generation, found.installed_generation) == ("old1", "new1")
    assert (found.model, found.quant, found.plan["quant"]) == ("small", "Q8_0", "F16")
    assert found.health == ("ok" if code == 200 else "503 loading")
    assert found.restarts == 2


def test_a_process_that_nobody_staged_is_no_generation(
    host: Kept, server: tuple[int, int, list[str]]
) -> None:
    host.keep("old1", argv=["other"], model="small", quant="Q8_0")
    host.install("old1")
    found = host.found()
    assert (found.running_generation, found.model) == (None, "")
    assert found.listening == (f"http://127.0.0.1:{server[0]}",)


def test_a_stopped_instance_tells_what_would_start(host: Kept) -> None:
    host.keep("old1", argv=["x"], model="small", quant="Q8_0", endpoint={"socket": None})
    host.install("old1")
    found = host.found()
    assert (found.active, found.listening, found.health) == ("inactive", (), "")
    assert (found.installed_generation, found.running_generation) == ("old1", None)
    assert found.plan["model"] == "small"


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_damaged_plan_is_none(host: Kept, damage: str) -> None:
    host.keep("old1")
    path = host.root / "state/instances/chat/generations/old1/plan.json"
    path.write_text(damage)
    host.install("old1")
    assert host.found().plan == {}


def test_a_bare_host_has_no_instance(host: Kept) -> None:
    assert kept.instances(host.paths)["instances"] == {}


def test_absent_weights_are_told(host: Kept) -> None:
    root = host.root / "state/models"
    root.mkdir(parents=True)
    (root / "a.gguf").touch()
    host.keep("new1", shards=[str(root / "a.gguf")])
    host.install("new1")
    assert host.found().weights_problem == ""
    host.keep("new2", shards=[str(root / "a.gguf"), str(root / "b.gguf")])
    host.install("new2")
    assert host.found().weights_problem.startswith(
        f"1 of 2 files of its model are absent, such as {root}/b.gguf. Next: mount the disk"
    )
    (host.root / "state/models-root").write_text("of another disk")
    assert "is not where the weights were put" in host.found().weights_problem
