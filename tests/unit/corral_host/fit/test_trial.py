"""A start with dummy weights: once for each combination, beside what runs, and always ended."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import fake_vllm
from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

trial = helper_module("fit.trial")
locks = helper_module("system.locks")
HostError = helper_module("system.commands").HostError
DATA = ROOT / "tests" / "data" / "vllm"
GPU = {
    "index": 0, "uuid": "GPU-0", "name": "NVIDIA H200", "memory_total_mib": 143771,
    "memory_free_mib": 143771, "driver_version": "580.95",
}  # fmt: skip
# systemd-run as far as a trial needs it: credentials, variables, a process group to stop.
SYSTEMD_RUN = """#!{python} -IS
import os, pathlib, subprocess, sys
here = pathlib.Path({here!r})
options, _, argv = " ".join(sys.argv[1:]).partition(" -- ")
pathlib.Path(here / "options").open("a").write(options + "\\n")
at = sys.argv.index("--")
environment = {{}}
for option in sys.argv[1:at]:
    name, _, value = option.partition("=")
    if name == "--setenv":
        environment.update([value.split("=", 1)])
    if value.startswith("LoadCredential="):
        name, source = value.partition("=")[2].split(":")
        (here / "credentials" / name).write_bytes(pathlib.Path(source).read_bytes())
running = subprocess.Popen(sys.argv[at + 1:], env=environment, start_new_session=True)
(here / "pid").write_text(str(running.pid))
code = running.wait()
(here / "pid").unlink()
sys.exit(code)
"""
SYSTEMCTL = """#!{python} -IS
import os, pathlib, signal, sys
pid = pathlib.Path({here!r}) / "pid"
if "stop" in sys.argv and pid.exists():
    os.kill(int(pid.read_text()), signal.SIGTERM)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose programs come first in the PATH; nothing may be left running in it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "credentials").mkdir()
    for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
        program = tmp_path / "bin" / name
        program.write_text(text.format(python=sys.executable, here=str(tmp_path)))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(trial, "fetch_missing", lambda _: None)
    monkeypatch.setattr(trial, "PAUSE_SECONDS", 0.02)
    yield tmp_path
    assert not (tmp_path / "pid").exists()
    assert {path.suffix for path in (tmp_path / "state" / "trials").glob("*")} <= {".json"}


def spec(here: Path, behaviour: str = "answers", log: str = "trial", **instance: Any) -> Any:
    script = Path(fake_vllm.__file__)
    argv = [sys.executable, str(script), str(DATA / f"{log}-log.txt")]
    argv += [str(here / "credentials" / "keys.yaml"), str(here / "s"), behaviour]
    settings = {
        "gpu_memory_utilization": 0.9, "tensor_parallel": 1, "data_parallel": 1,
        "kv_cache_mib": 256,
    }  # fmt: skip
    return {
        "by": "op on box", "paths": {"state": str(here / "state")},
        "shards": [{"kind": "config", "sha256": "c" * 64, "size_bytes": 9}],
        "instance": {
            "name": "air", "kind": "vllm", "alias": "air", "release": "r1", "gpus": [],
            "settings": settings, "ready_timeout_seconds": 20,
            "chat_template": None,
            "environment": {"VLLM_HOST_IP": "127.0.0.1", "HOME": "%C/corral-air"},
            "trial": {"unit": "corral-job-trial.air.service", "socket": str(here / "s"),
                      "argv": argv},
            **instance,
        },
    }  # fmt: skip


def test_what_it_reports_is_the_result(here: Path) -> None:
    found = trial.trial(spec(here))
    assert found["figures"] == {
        "weights_gib": None, "cache_gib": 0.25, "graphs_gib": None, "cache_tokens": 524288,
        "request_tokens": 2048, "requests": 256.0,
    }  # fmt: skip
    assert (found["known"], found["skipped"]) == (False, "")
    options = (here / "options").read_text()
    for part in (
        *("DynamicUser=yes", "PrivateNetwork=yes", "BindsTo=corral-job-trial-air.service"),
        *("RuntimeMaxSec=140", "--setenv=HOME=/tmp", "--setenv=VLLM_HOST_IP=127.0.0.1"),
    ):
        assert part in options
    (key,) = json.loads((here / "credentials" / "keys.yaml").read_text())["api-key"]
    assert key not in options
    assert re.fullmatch("[0-9a-f]{64}", key), "vLLM takes a dash at the beginning for a flag"


def test_each_combination_is_tried_once(here: Path) -> None:
    first = trial.trial(spec(here))
    again = trial.trial(spec(here, ready_timeout_seconds=30))
    assert again == {**first, "known": True}
    assert len((here / "options").read_text().splitlines()) == 1
    changes: list[dict[str, Any]] = [{"release": "r2"}, {"environment": {}}]
    for change in changes:
        assert not trial.trial(spec(here, **change))["known"]
    other = spec(here)
    other["shards"][0]["sha256"] = "d" * 64
    assert not trial.trial(other)["known"]
    assert not trial.trial(spec(here, chat_template="{{ x }}"))["known"]
    assert (here / "credentials" / "chat-template.jinja").read_text() == "{{ x }}"
    assert len((here / "options").read_text().splitlines()) == 5


def test_an_end_is_a_fault_with_vllms_own_estimate(here: Path) -> None:
    with pytest.raises(HostError) as caught:
        trial.trial(spec(here, "dies", "length-beyond-cache"))
    assert str(caught.value) == (
        "air: with dummy weights it does not serve: one request of 4000000 tokens needs 1.91 GiB "
        "of KV cache and 1.0 GiB are there; vLLM estimates that 2097024 tokens fit. Next: lower "
        "context_tokens_per_slot in the profile to 2097024 or less, or give the server more memory "
        "(gpu_memory_utilization, more GPUs, a smaller KV cache type); then run the same deploy "
        "again"
    )
    assert list((here / "state" / "trials").glob("*.json")) == []


@pytest.mark.parametrize("late_seconds", [0, 1.5])
def test_an_end_without_a_reason_shows_the_end_of_the_log(
    here: Path, monkeypatch: pytest.MonkeyPatch, late_seconds: float
) -> None:
    """Also where it ends before its last lines are read."""
    listen = trial.listen

    def late(*words: Any) -> None:
        time.sleep(late_seconds)
        listen(*words)

    monkeypatch.setattr(trial, "listen", late)
    with pytest.raises(HostError, match=r"the server ended\. Its last lines:\n(.|\n)*HOME=/tmp"):
        trial.trial(spec(here, "dies"))


def test_one_that_is_healthy_and_answers_nothing_has_failed(here: Path) -> None:
    with pytest.raises(HostError, match="answered 500"):
        trial.trial(spec(here, "unwell"))


def test_an_error_in_its_log_does_not_hide_what_failed_while_it_runs(here: Path) -> None:
    wanted = r"answered 500\b.*; its log says: one request of 4000000 tokens needs 1\.91 GiB"
    with pytest.raises(HostError, match=wanted):
        trial.trial(spec(here, "unwell", "length-beyond-cache"))
    late = spec(here, "loads", "length-beyond-cache", ready_timeout_seconds=1)
    with pytest.raises(HostError, match="not ready within 1 s; its log says: ") as caught:
        trial.trial(late)
    assert caught.value.next_step.startswith("raise ready_timeout_seconds")


def test_one_that_loads_without_end_is_ended_at_its_limit(here: Path) -> None:
    with pytest.raises(HostError, match=r"not ready within 1 s(.|\n)*raise ready_timeout_seconds"):
        trial.trial(spec(here, "loads", ready_timeout_seconds=1))


@pytest.mark.parametrize(("free_mib", "tried"), [(129459, True), (129457, False)])
def test_gpus_that_are_in_use_are_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, tried: bool
) -> None:
    gpu = {**GPU, "memory_free_mib": free_mib}
    monkeypatch.setattr(trial.nvidia_smi, "ask", lambda: {"gpus": [gpu], "problem": ""})
    found = trial.trial(spec(here, gpus=[0]))
    assert (found["figures"] is not None) is tried
    if not tried:
        assert found["skipped"] == "GPU 0 has 129457 MiB free, it takes 129458"
        assert not (here / "options").exists()
        assert list((here / "state" / "trials").glob("*.json")) == []


def test_without_gpus_weights_and_cache_are_in_main_memory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.kernel, "memory", lambda: {"available_mib": 6375, "total_mib": 9000})
    large = spec(here)
    large["shards"].append({"kind": "weights", "sha256": "w", "size_bytes": 1000 * 1024**2})
    assert trial.trial(large)["skipped"] == "host memory has 6375 MiB free, it takes 6376"
    large["shards"][-1]["size_bytes"] -= 1024**2
    assert trial.trial(large)["figures"]


def test_none_runs_beside_an_activation(here: Path) -> None:
    doing = locks.held(locks.activate_lock(str(here / "state")), "op on other", "activating x")
    with doing, pytest.raises(HostError, match="activating x"):
        trial.trial(spec(here))
    assert not (here / "options").exists()


def test_none_runs_while_another_rollout_holds_the_host(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = {"state": str(here / "state"), "rollout": "mine"}
    asked: list[Any] = []

    def refuse(operator: Any) -> None:
        asked.append(operator)
        raise HostError("held for rollout theirs")

    monkeypatch.setattr(trial, "refuse_other_operator", refuse)
    with pytest.raises(HostError, match="held for rollout theirs"):
        trial.trial({**spec(here), "asker": asker})
    assert asked == [asker]
    assert not (here / "options").exists()


def test_results_are_few(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STORED", 1)
    trial.trial(spec(here))
    trial.trial(spec(here, release="r2"))
    assert len(list((here / "state" / "trials").glob("*.json"))) == 1
    assert trial.trial(spec(here, release="r2"))["known"]


def test_configuration_is_fetched_and_arrived_parts_of_weights_stay(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = helper_module("weights.fetch")
    fetched: list[str] = []
    for name in ("refuse", "refuse_elsewhere", "mark"):
        monkeypatch.setattr(fetch, name, lambda *_: None)
    monkeypatch.setattr(fetch, "root_fault", lambda _: None)
    monkeypatch.setattr(fetch, "crossing", lambda *_: None)
    monkeypatch.setattr(fetch, "staging_path", lambda *_: None)
    monkeypatch.setattr(fetch, "fetch_shard", lambda shard, _: fetched.append(shard["path"]))
    monkeypatch.setattr(fetch, "forget_unwanted", lambda *_: pytest.fail("weights are wanted"))
    monkeypatch.setattr(trial, "fetch_missing", fetch.fetch_missing)
    sent = spec(here)
    sent["shards"] = [
        {"kind": kind, "sha256": "c" * 64, "size_bytes": 9, "path": f"/m/{kind}", "gated": False}
        for kind in ("weights", "config")
    ]
    trial.trial(sent)
    assert fetched == ["/m/config"]
