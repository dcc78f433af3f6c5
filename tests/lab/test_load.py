"""`corral bench --load` on real hosts: real servers, through ssh and through a real gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.bench.load.result import LoadResult
from corral.bench.store import ResultStore
from lab.layout import GATEWAY
from tests.lab.untouched import said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

HOST, NAME = "lab-1", "tiny-chat"
INSTANCE = f"{HOST}/{NAME}"
GW = f"lab-{GATEWAY}"
INVENTORY = ("-i", "inventories/lab.py")
FEW = ("--workload", "64/16", "--prompts", "2,4")
# Longer than any test takes.
MANY = ("--workload", "64/1900", "--prompts", "1000", "--concurrency", "2")


@pytest.fixture(scope="module")
def lab(with_gateway: Workspace) -> Workspace:
    return with_gateway


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def load(lab: Workspace, results: Path, *arguments: str) -> Done:
    return lab.corral("bench", *arguments, "--load", "--results", str(results), *INVENTORY)


def kept(results: Path) -> list[LoadResult]:
    return [one for one in ResultStore(results).results() if isinstance(one, LoadResult)]


def slots(lab: Workspace) -> list[dict[str, Any]]:
    """The server's slots, asked on its host."""
    script = (
        f"key=$(grep -v '^#' /etc/corral/keys/{NAME} | head -1); "
        f'curl --silent -H "Authorization: Bearer $key" http://{lab.layout.address(1)}:8001/slots'
    )
    found: list[dict[str, Any]] = json.loads(lab.on(HOST, script))
    return found


def is_idle(lab: Workspace) -> bool:
    return not any(slot["is_processing"] for slot in slots(lab))


def helpers(lab: Workspace) -> str:
    """Processes of the helper on the host."""
    return lab.try_on(HOST, "pgrep -af 'python3 -I -c' | grep -v pgrep").stdout


@pytest.mark.parametrize(
    ("instance", "path", "through"),
    [
        (INSTANCE, "ssh", ()),
        ("lab-2/tiny-ik", "ssh", ()),
        ("lab-3/tiny-socket", "ssh", ()),
        (INSTANCE, "gateway", ("--through", GW)),
    ],
    ids=["address", "ik_llama.cpp", "socket", "gateway"],
)
def test_every_request_is_answered_whole(
    lab: Workspace, results: Path, instance: str, path: str, through: tuple[str, ...]
) -> None:
    done = load(lab, results, instance, *FEW, *through)
    assert done.returncode == 0, said(done)
    (found,) = kept(results)
    assert (found.name, found.path) == (instance, path)
    assert found.round_trip_ms
    assert [run.completed for run in found.runs] == [2, 4]
    for run in found.runs:
        number = run.case.num_prompts
        assert (run.failed, run.ended_early, run.failures) == (0, 0, {})
        assert (run.total_input_tokens, run.total_output_tokens) == (64 * number, 16 * number)
        assert run.cached_input_tokens == 0
        assert run.mean_ttft_ms
        assert run.mean_e2el_ms
        assert run.mean_ttft_ms < run.mean_e2el_ms


def test_two_load_tests_are_compared_and_drawn(lab: Workspace, results: Path) -> None:
    for _ in range(2):
        done = load(lab, results, INSTANCE, *FEW, "--repetitions", "2", "--json")
        assert done.returncode == 0, said(done)
        assert json.loads(done.stdout)[0]["runs"][0]["completed"] == 2
    older = min((results / HOST / NAME).glob("2*.json"))
    picture = results / "load.svg"
    arguments = ("compare", INSTANCE, str(older), "--results", str(results))
    drawn = lab.corral("bench", *arguments, "--json", "--plot", str(picture))
    assert drawn.returncode == 0, said(drawn)
    assert {row["figure"] for row in json.loads(drawn.stdout)["rows"]} >= {"p99_ttft_ms"}
    assert picture.read_text().count("<svg") == 1
    listed = lab.corral("bench", "list", "--results", str(results))
    assert "through ssh from the controller" in listed.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_of_an_interrupted_one_nothing_stays(
    lab: Workspace, results: Path, tmp_path: Path, how: signal.Signals
) -> None:
    process = lab.start_corral(
        *("bench", INSTANCE, "--load", *MANY, "--results", str(results), *INVENTORY),
        log=tmp_path / "log",
    )
    wait_for(lambda: not is_idle(lab), "it sends requests")
    second = load(lab, results, "lab-1/tiny-long", *FEW)
    assert second.returncode == 1
    assert f"a benchmark of {NAME} runs on this host" in said(second)
    process.send_signal(how)
    process.wait(timeout=120)
    wait_for(lambda: is_idle(lab), "the server has nothing to do")
    wait_for(lambda: "load" not in helpers(lab), "no helper is left")
    assert kept(results) == []
    again = load(lab, results, INSTANCE, *FEW)
    assert again.returncode == 0, said(again)


def test_requests_that_fail_are_counted_and_reported(
    lab: Workspace, results: Path, tmp_path: Path
) -> None:
    process = lab.start_corral(
        *("bench", INSTANCE, "--load", "--workload", "64/1900", "--prompts", "4"),
        *("--concurrency", "2", "--results", str(results), *INVENTORY),
        log=tmp_path / "log",
    )
    wait_for(lambda: not is_idle(lab), "it sends requests")
    lab.on(HOST, f"systemctl kill --signal=KILL corral-{NAME}")
    assert process.wait() == 1
    (found,) = kept(results)
    assert found.runs[0].failed >= 2
    assert sum(found.runs[0].failures.values()) == found.runs[0].failed
    assert "failed: " in (tmp_path / "log").read_text()
    assert lab.corral("start", INSTANCE, *INVENTORY).returncode == 0


def test_a_gateway_that_does_not_serve_the_instance_is_refused(
    lab: Workspace, results: Path
) -> None:
    for through, what in (("lab-2", "is no gateway"), (GW, "does not serve lab-1/tiny-long")):
        done = load(lab, results, "lab-1/tiny-long", *FEW, "--through", through)
        assert done.returncode == 1
        assert what in said(done)


def test_a_stopped_server_and_too_long_requests_are_refused(lab: Workspace, results: Path) -> None:
    long = load(lab, results, INSTANCE, "--workload", "8000/1000")
    assert long.returncode == 1
    assert "needs 9000 tokens, and a slot has 2048" in said(long)
    assert lab.corral("stop", INSTANCE, *INVENTORY).returncode == 0
    done = load(lab, results, INSTANCE, *FEW)
    assert lab.corral("start", INSTANCE, *INVENTORY).returncode == 0
    assert done.returncode == 1
    assert f"corral start {INSTANCE}" in said(done)


# In place of a release's load generator: asks the server, as the unit's user and with its key.
GENERATOR = """
import json, os, sys, urllib.request
asked = urllib.request.Request(sys.argv[1] + "/v1/models")
asked.add_header("Authorization", "Bearer " + os.environ["A_KEY"])
models = json.load(urllib.request.urlopen(asked))
if sys.argv[2] == "stay":
    import time
    time.sleep(600)
with open("figures.json", "w") as file:
    json.dump({"model": models["data"][0]["id"], "user": os.getuid()}, file)
"""
SESSION = """
import json, sys
from pathlib import Path
from corral.bench.load.run import LoadTest
from corral.bench.load.session import session
from corral.engines.load import LoadCommand
from corral.inventory.hosts import load_inventory
from corral.planning.load import load_planner
from corral.project import project_root
host_name, _, name = sys.argv[1].partition("/")
hosts = load_inventory(Path("inventories/lab.py"))
(host,) = [one for one in hosts if one.name == host_name]
plan = load_planner(project_root()).plan_host(host)
test = LoadTest(host, plan, plan.instance(name), (), 1, 60)
with session(host, test.spec(), test.name) as opened:
    print("held", flush=True)
    words = (opened.facts.url, sys.argv[2])
    command = LoadCommand("/usr/bin/python3", "a_generator", words, "A_KEY", "figures.json")
    print(json.dumps(opened.run(command, limit_seconds=60)))
"""
MODULE = "/usr/lib/python3/dist-packages/a_generator.py"


def start_session(lab: Workspace, instance: str, what: str) -> subprocess.Popen[str]:
    host = instance.partition("/")[0]
    lab.on(host, f"cat > {MODULE} <<'END'\n{GENERATOR}END")
    return subprocess.Popen(
        [sys.executable, "-c", SESSION, instance, what], cwd=lab.path, text=True,
        env={**os.environ, "PYTHONPATH": f"{lab.path}:{lab.path / 'files'}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("instance", [INSTANCE, "lab-3/tiny-socket"])
def test_a_load_generator_on_the_host_reaches_the_server_with_its_key(
    lab: Workspace, instance: str
) -> None:
    host, _, name = instance.partition("/")
    process = start_session(lab, instance, "end")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    found = json.loads(printed.splitlines()[-1])
    assert found["model"] == "tiny-glm-moe"
    # Of a socket it is the server's own user.
    same = lab.on(host, f"systemctl show corral-{name} -P UID") == str(found["user"])
    assert same == (name == "tiny-socket")
    assert found["user"] != 0
    keys = (lab.layout.keys / host / name).read_text().splitlines()
    journal = lab.on(host, "journalctl --no-pager --output=cat")
    assert not [key for key in keys if key and not key.startswith("#") and key in journal]


def test_a_load_generator_ends_with_its_controller(lab: Workspace) -> None:
    unit = f"corral-load-{NAME}.service"
    process = start_session(lab, INSTANCE, "stay")
    wait_for(lambda: lab.try_on(HOST, f"systemctl is-active {unit}").returncode == 0, "it runs")
    process.kill()
    process.wait(timeout=120)
    wait_for(lambda: lab.try_on(HOST, f"systemctl is-active {unit}").returncode != 0, "it ended")
    wait_for(lambda: "load" not in helpers(lab), "no helper is left")
