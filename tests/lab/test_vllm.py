"""vLLM on a host without GPUs: from bare to chat and tools; changed, killed, refused, reverted.

The engine is vllm-cpu, the model a tiny random one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from lab import vllm_cpu, wheel_index
from tests.lab.engine_cache import releases_at_hand
from tests.lab.extra_host import extra_host
from tests.lab.test_third_engine import added
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import kill, wait_for
from tests.lab.workspace import Done, Workspace

NUMBER, HOST, INSTANCE = 4, "lab-4", "lab-4/glm"
UNIT = "corral-glm"
INVENTORY = "inventories/vllm.py"
LAB = ("-i", INVENTORY)
PROFILE = "catalog/profiles/lab-vllm.toml"
PORT = 8001
TRIAL = "corral-job-trial.glm"
HOSTS = """from lab.hosts import connection_data
from lab.layout import this_lab

_lab = this_lab()
_glm = {"name": "glm", "profile": "lab-vllm", "port": 8001, "activation": "in-place"}
_shared = {"hub_url": _lab.hub_url, "keys_folder": str(_lab.keys)}
_shared["archives_folder"] = str(_lab.archives)
servers = [("lab-4", {**connection_data(_lab, 4), **_shared, "instances": [_glm]})]
"""
SETTINGS = """model = "tiny-glm-moe-safetensors"
quant = "BF16"
engine = "vllm-cpu"
alias = "glm"
placement = "cpu"
context_tokens_per_slot = 1024
slots = 2
kv_cache_mib = 64
eager = true
tool_call_parser = "glm45"
reasoning_parser = "glm45"
probe_reasoning = true

[speed]
off = true
"""
# The model's only tool; asked for anything else it answers in words.
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
# A process of another user that holds a port, until its end.
SQUATTER = "systemd-run --unit=squatter python3 -m http.server --bind 127.0.0.1"


@pytest.fixture(scope="module")
def lab(bare_lab: Workspace) -> Iterator[Workspace]:
    """One more host, and a checkout with vllm-cpu as an engine."""
    before = (bare_lab.path / "corral.lock").read_text()
    locked_files = bare_lab.path / "corral.lock.d"
    kept = {path.name: path.read_text() for path in locked_files.glob("*")}
    with ExitStack() as stack:
        stack.callback(_restore, bare_lab, before, kept)
        stack.enter_context(extra_host(bare_lab, NUMBER))
        address = str(bare_lab.layout.controller_address)
        index = stack.enter_context(wheel_index.serving(vllm_cpu.wheelhouse(), address))
        for name, text in {
            "catalog/engines/vllm-cpu.toml": vllm_cpu.catalog_entry(index.url),
            PROFILE: SETTINGS,
            INVENTORY: HOSTS,
        }.items():
            stack.enter_context(added(bare_lab, name, text))
        locked = bare_lab.corral("lock", INVENTORY)
        assert locked.returncode == 0, said(locked)
        yield bare_lab


def _restore(lab: Workspace, lock: str, files: dict[str, str]) -> None:
    (lab.path / "corral.lock").write_text(lock)
    folder = lab.path / "corral.lock.d"
    shutil.rmtree(folder)
    for name, text in files.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def deploy(lab: Workspace) -> Done:
    return lab.deploy(inventory=INVENTORY)


@pytest.fixture(scope="module")
def serving(lab: Workspace) -> Workspace:
    """It serves, after one deploy of a bare host."""
    with releases_at_hand(lab, inventory=INVENTORY):
        done = deploy(lab)
    assert done.returncode == 0, said(done)
    return lab


def request(path: str, body: str = "") -> str:
    """A command on the host; the key is read from a file, so that no argument holds it."""
    header = "sed -n '/^[^#]/{s/^/Authorization: Bearer /p;q}' /etc/corral/keys/glm"
    data = f"--header 'Content-Type: application/json' --data '{body}'" if body else ""
    url = f"http://127.0.0.1:{PORT}{path}"
    return f"{header} | curl --silent --no-buffer --max-time 120 --header @- {data} {url}"


def chat(lab: Workspace, **more: Any) -> dict[str, Any]:
    """The message of a chat completion."""
    body = {
        "model": "glm", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 64,
        "temperature": 0, **more,
    }  # fmt: skip
    answer = json.loads(lab.on(HOST, request("/v1/chat/completions", json.dumps(body))))
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def answers(lab: Workspace) -> bool:
    done = lab.try_on(HOST, request("/v1/completions", '{"model": "glm", "prompt": "a"}'))
    return '"choices"' in done.stdout


def arguments(lab: Workspace) -> str:
    return lab.on(HOST, f"tr '\\0' ' ' < /proc/{lab.pid(HOST, 'glm')}/cmdline")


def environment(lab: Workspace, pid: str) -> str:
    return lab.on(HOST, f"tr '\\0' '\\n' < /proc/{pid}/environ")


def processes(lab: Workspace) -> list[str]:
    """All processes of the unit."""
    group = lab.on(HOST, f"systemctl show {UNIT} -P ControlGroup")
    listed = f"find /sys/fs/cgroup -path '*{group}/cgroup.procs' -exec cat {{}} + | sort -un"
    return lab.on(HOST, listed).split()


def name(lab: Workspace, pid: str) -> str:
    return lab.on(HOST, f"tr '\\0' ' ' < /proc/{pid}/cmdline")


def units(lab: Workspace) -> str:
    return lab.on(HOST, "systemctl list-units --all --plain --no-legend 'corral*'")


@contextmanager
def two_ranks(lab: Workspace) -> Iterator[None]:
    """Another type of weights, divided by tensor parallelism."""
    ranks = 'quant = "F32"\ntensor_parallel = 2\ncpu_cores = ["0", "1"]'
    with lab.edited(PROFILE, 'quant = "BF16"', ranks):
        yield


def test_a_deploy_of_a_bare_host_makes_it_chat(serving: Workspace) -> None:
    program = serving.on(HOST, f"readlink /proc/{serving.pid(HOST, 'glm')}/exe")
    assert program.startswith("/opt/corral/engines/vllm-cpu/")
    assert program.endswith("/bin/python")
    message = chat(serving)
    assert message.get("content") or message.get("reasoning")
    assert not message.get("tool_calls")


def test_it_calls_a_tool(serving: Workspace) -> None:
    message = chat(serving, tools=[TOOL], max_tokens=128)
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["city"]


def test_every_check_of_it_passes(serving: Workspace) -> None:
    verified = serving.corral("verify", INSTANCE, *LAB)
    assert verified.returncode == 0, said(verified)
    for check in ("keys", "model", "completion", "stream", "tool call", "reasoning", "process"):
        assert check in verified.stdout


def test_a_deploy_without_a_change_restarts_nothing(serving: Workspace) -> None:
    pid = serving.pid(HOST, "glm")
    again = deploy(serving)
    assert again.returncode == 0, said(again)
    assert serving.pid(HOST, "glm") == pid


def test_its_key_is_in_no_argument_environment_or_log(serving: Workspace) -> None:
    key = (serving.layout.keys / HOST / "glm").read_text().splitlines()[-1]
    found = processes(serving)
    assert len(found) > 1, "its engine is a process of its own"
    for pid in found:
        assert key not in serving.on(HOST, f"tr '\\0' ' ' < /proc/{pid}/cmdline")
        assert key not in environment(serving, pid)
    assert key not in serving.on(HOST, f"journalctl --unit {UNIT} --output cat")


def test_nothing_of_it_is_open_to_the_network(serving: Workspace) -> None:
    """/invocations answers a whole completion without a key."""
    body = '{"model": "glm", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 2}'
    asked = "curl --silent --max-time 60 --header 'Content-Type: application/json'"
    without = serving.on(HOST, f"{asked} --data '{body}' http://127.0.0.1:{PORT}/invocations")
    assert '"choices"' in without, "on loopback it does, for programs of the same host"
    address = serving.layout.address(NUMBER)
    outside = serving.try_on(
        "lab-1", f"{asked} --data '{body}' http://{address}:{PORT}/invocations"
    )
    assert outside.returncode == 7, "connection refused"


def test_its_unit_is_closed(serving: Workspace) -> None:
    rated = serving.on(HOST, f"systemd-analyze security {UNIT} --no-pager | tail -n 1")
    level = float(rated.partition("level for ")[2].split(":")[1].split()[0])
    assert level <= 1.2, rated


def test_a_network_address_without_a_gateway_is_refused(serving: Workspace) -> None:
    address = str(serving.layout.address(NUMBER))
    with serving.edited(INVENTORY, '"port": 8001', f'"port": 8001, "address": "{address}"'):
        planned = serving.corral("plan", HOST, *LAB)
    assert_refused(planned, "gateway")


def test_a_killed_engine_comes_back(serving: Workspace) -> None:
    main = str(serving.pid(HOST, "glm"))
    engine = serving.on(HOST, f"pgrep --parent {main} --full EngineCore")
    serving.on(HOST, f"kill -9 {engine}")
    wait_for(
        lambda: serving.pid(HOST, "glm") not in (0, int(main)),
        "systemd starts it",
    )
    wait_for(lambda: answers(serving), "it answers")


def test_a_stop_lets_a_stream_end(serving: Workspace) -> None:
    body = {
        "model": "glm", "prompt": "a", "max_tokens": 400, "min_tokens": 400, "stream": True,
        "ignore_eos": True,
    }  # fmt: skip
    asked = request("/v1/completions", json.dumps(body))
    serving.on(HOST, f'nohup sh -c "{_quoted(asked)}" > /root/stream 2>&1 < /dev/null &')
    wait_for(lambda: serving.try_on(HOST, "test -s /root/stream").returncode == 0, "it streams")
    stopped = serving.corral("stop", INSTANCE, *LAB)
    assert stopped.returncode == 0, said(stopped)
    streamed = serving.on(HOST, "cat /root/stream")
    assert streamed.splitlines()[-1] == "data: [DONE]"
    assert streamed.count('"text"') > 1
    started = serving.corral("start", INSTANCE, *LAB)
    assert started.returncode == 0, said(started)
    wait_for(lambda: answers(serving), "it answers")


def _quoted(script: str) -> str:
    return script.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def test_a_length_that_its_cache_cannot_hold_touches_nothing(serving: Workspace) -> None:
    pid = serving.pid(HOST, "glm")
    with serving.edited(PROFILE, "kv_cache_mib = 64", "kv_cache_mib = 1"):
        failed = deploy(serving)
    assert_refused(failed, "context_tokens_per_slot")
    assert serving.pid(HOST, "glm") == pid


def test_a_controller_that_is_killed_during_a_trial_changes_nothing(serving: Workspace) -> None:
    pid = serving.pid(HOST, "glm")
    with two_ranks(serving):
        begun = serving.start_deploy(inventory=INVENTORY)
        wait_for(lambda: TRIAL in units(serving), "the trial runs")
        kill(begun)
    assert serving.pid(HOST, "glm") == pid
    assert "/BF16 " in arguments(serving)


def test_the_next_deploy_serves_another_type_of_weights_on_two_ranks(serving: Workspace) -> None:
    with two_ranks(serving):
        done = deploy(serving)
        assert done.returncode == 0, said(done)
    assert "/F32 " in arguments(serving)
    workers = [pid for pid in processes(serving) if "VLLM::Worker" in name(serving, pid)]
    assert len(workers) == 2
    assert chat(serving)
    assert TRIAL not in units(serving)


def test_and_side_by_side_back(serving: Workspace) -> None:
    """The profile says BF16 again."""
    with serving.edited(INVENTORY, '"in-place"', '"side-by-side"'):
        done = deploy(serving)
        assert done.returncode == 0, said(done)
    assert "/BF16 " in arguments(serving)
    assert f"--port {PORT}" in arguments(serving)
    assert chat(serving)


def test_a_port_that_is_taken_is_reverted(serving: Workspace) -> None:
    serving.on(HOST, f"{SQUATTER} 8077")
    try:
        with serving.edited(INVENTORY, '"port": 8001', '"port": 8077'):
            failed = deploy(serving)
    finally:
        serving.on(HOST, "systemctl stop squatter")
    assert failed.returncode != 0
    assert "8077" in said(failed)
    assert f"--port {PORT}" in arguments(serving)
    assert answers(serving)


def test_a_load_test_of_it(serving: Workspace) -> None:
    measured = serving.corral(
        "bench", INSTANCE, "--load", "--prompts", "4",
        "--workload", "32/8", "--json", *LAB,
    )  # fmt: skip
    assert measured.returncode == 0, said(measured)
    assert '"completed": 4' in measured.stdout
