"""The helper's side of a benchmark: refusals, stopping and restarting the server, the run."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module, program

pytestmark = pytest.mark.slow

bench = helper_module("bench.measure")
bench_run = helper_module("checks.program_unit")
HostError = helper_module("system.commands").HostError
boot_id = helper_module("system.locks").boot_id

NEED = {"weights_mib": 600, "kv_mib": 200, "compute_mib": 150, "runtime_mib": 50}


@dataclass
class Machine:
    """A host whose systemd is two scripts; ``commands``: of systemctl."""

    root: Path
    serves: bool = True
    active: str = "active"
    gates: Iterator[str] = field(default_factory=lambda: itertools.repeat(""))

    @property
    def commands(self) -> list[str]:
        log = self.root / "systemctl.log"
        return log.read_text().splitlines() if log.exists() else []

    def spec(
        self, where: str = "stop", *, script: str = "echo '{}'", lines: int = 1
    ) -> dict[str, Any]:
        (self.root / "release").mkdir(exist_ok=True)
        (self.root / "release" / "manifest.json").write_text('{"commit": "c0ffee"}')
        program(self.root / "release" / "bin", "llama-bench", script)
        instance = {
            "name": "chat", "unit": "corral-chat.service", "folder": str(self.root),
            "generation": "g", "argv": ["s"], "gpus": [], "need": {
                "gpus": [], "host": NEED, "unknown": "",
            }, "environment": {"A": "1", "B": "2 3", "CUDA_CACHE_PATH": "%C/x", "HOME": "%C/x"},
        }  # fmt: skip
        argv = [str(self.root / "release" / "bin" / "llama-bench"), "--model", "a b"]
        release = {"engine": "llama.cpp", "key": "k", "folder": str(self.root / "release")}
        return {
            "host": "node-1", "state": str(self.root), "instance": "chat", "instances": [instance],
            "release": release, "where": where, "properties": ["NUMAPolicy=interleave"],
            "commands": [{"argv": argv, "repeat": 2, "lines": lines}],
        }  # fmt: skip

    def gate(self, _: dict[str, Any], __: tuple[str, ...]) -> None:
        if fault := next(self.gates):
            raise HostError(fault)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    program(tmp_path / "bin", "systemctl", f'echo "$@" >> {tmp_path}/systemctl.log')
    # Runs the command after the dashes.
    run = f'echo "$@" >> {tmp_path}/run.log; while [ "$1" != -- ]; do shift; done; shift; "$@"'
    program(tmp_path / "bin", "systemd-run", run)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    shown = {"ActiveState": "inactive"}
    monkeypatch.setattr(bench_run, "show", lambda *_: shown)
    monkeypatch.setattr(bench, "release_is_whole", lambda _: True)
    monkeypatch.setattr(bench, "gate", made.gate)
    monkeypatch.setattr(
        bench,
        "instance_state",
        lambda *_, **__: {"active": made.active, "sub": "dead", "serves": made.serves},
    )
    monkeypatch.setattr(bench, "host_room", lambda *_: {"there": 2000})
    return made


def test_a_server_is_stopped_measured_and_back(machine: Machine) -> None:
    answer = bench.bench(machine.spec())
    assert answer["outputs"] == [[["{}"], ["{}"]]]
    assert (answer["where"], answer["gpus"], answer["commit"]) == ("stopped", [], "c0ffee")
    assert [line for line in machine.commands if "bench" not in line] == [
        "stop corral-chat.service",
        "reset-failed corral-chat.service",
        "start corral-chat.service",
    ]
    assert not (machine.root / "benching.json").exists()


def test_beside_the_server_nothing_is_stopped(machine: Machine) -> None:
    assert bench.bench(machine.spec("beside"))["where"] == "beside"
    assert machine.commands == []


def test_what_a_power_loss_left_is_no_fault_of_the_next_benchmark(machine: Machine) -> None:
    spec = machine.spec("beside")
    (machine.root / "benching.json").write_text('{"at": 1, "boot_id": "of before"}')
    assert not bench.is_stopped(spec["instances"][0])
    bench.bench(spec)
    assert bench.settle_bench(spec) is None


def test_the_program_gets_its_words_and_the_units_variables(machine: Machine) -> None:
    answer = bench.bench(machine.spec(script="""printf '{"words": "%s"}\\n' "$*" """))
    assert json.loads(answer["outputs"][0][0][0]) == {"words": "--model a b"}
    ran = (machine.root / "run.log").read_text().splitlines()[0]
    assert "--setenv=A=1 --setenv=B=2 3 --" in ran
    assert "CUDA_CACHE_PATH" not in ran
    assert "HOME=" not in ran
    assert "--property=BindsTo=corral-job-bench-chat.service" in ran
    assert "--property=NUMAPolicy=interleave" in ran


def test_a_server_comes_first_beside_its_benchmark(machine: Machine) -> None:
    bench.bench(machine.spec("beside"))
    assert "Nice=10" in (machine.root / "run.log").read_text()
    bench.bench(machine.spec("stop"))
    assert "Nice=10" not in (machine.root / "run.log").read_text().splitlines()[-1]


def test_a_failed_program_is_told_in_its_own_words_and_the_server_is_back(
    machine: Machine,
) -> None:
    out_of_memory = "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory"
    script = f"echo '{{}}'; echo '{out_of_memory}' >&2; exit 1"
    with pytest.raises(HostError) as error:
        bench.bench(machine.spec(script=script))
    assert "llama-bench failed with exit code 1" in str(error.value)
    assert out_of_memory in str(error.value)
    assert machine.commands[-1] == "start corral-chat.service"


def test_a_program_that_says_nothing_is_a_failure(machine: Machine) -> None:
    with pytest.raises(HostError, match="without its results, 0 of 1 at last:\nhello"):
        bench.bench(machine.spec(script="echo hello"))


def test_a_run_that_lost_a_result_is_run_again(machine: Machine) -> None:
    ran = machine.root / "ran"
    script = f"echo '{{}}'; [ ! -e {ran} ] || echo '{{}}'; touch {ran}"
    answer = bench.bench(machine.spec(script=script, lines=2))
    assert answer["outputs"] == [[["{}", "{}"], ["{}", "{}"]]]
    assert len((machine.root / "run.log").read_text().splitlines()) == 3


def test_a_line_that_comes_in_two_blocks_is_one(machine: Machine) -> None:
    script = """printf '{"n_gen": '; sleep 0.3; echo noise >&2; sleep 0.3; echo '1}'"""
    found = bench.bench(machine.spec(script=script))
    assert found["outputs"] == [[['{"n_gen": 1}']] * 2]


def test_a_server_that_does_not_come_back_is_told_beside_the_failure(machine: Machine) -> None:
    machine.gates = iter(["not ready"])
    with pytest.raises(HostError) as error:
        bench.bench(machine.spec(script="echo bad >&2; exit 3"))
    assert "failed with exit code 3" in str(error.value)
    assert "chat was stopped for this and IS DOWN: not ready" in str(error.value)
    assert (machine.root / "benching.json").exists()


def test_a_server_that_does_not_come_back_fails_a_good_run(machine: Machine) -> None:
    machine.gates = iter(["not ready"])
    with pytest.raises(HostError, match="IS DOWN: not ready"):
        bench.bench(machine.spec())


def test_figures_beside_a_server_that_somebody_started_do_not_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {"ActiveState": "active"}
    monkeypatch.setattr(bench_run, "show", lambda *_: shown)
    with pytest.raises(HostError, match="chat was started while it was measured"):
        bench.bench(machine.spec())


@pytest.mark.parametrize("where", ["stop", "beside"])
def test_an_instance_that_does_not_run_is_refused(machine: Machine, where: str) -> None:
    machine.active = "inactive"
    with pytest.raises(HostError, match="node-1/chat does not run .inactive, dead.*Next: `corral"):
        bench.bench(machine.spec(where))
    assert machine.commands == []


def test_an_instance_that_is_not_as_planned_is_refused(machine: Machine) -> None:
    machine.serves = False
    with pytest.raises(HostError, match="does not serve generation g. Next: deploy"):
        bench.bench(machine.spec())


def test_a_release_that_is_not_there_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "release_is_whole", lambda _: False)
    with pytest.raises(HostError, match="release k of llama.cpp is not installed. Next: deploy"):
        bench.bench(machine.spec())


def test_a_release_without_the_program_is_refused(machine: Machine) -> None:
    spec = machine.spec()
    (machine.root / "release" / "bin" / "llama-bench").unlink()
    with pytest.raises(HostError, match="has no llama-bench. Next: add it to targets in catalog"):
        bench.bench(spec)


def test_without_room_beside_it_stopping_is_offered(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "host_room", lambda *_: {"there": 399})
    spec = machine.spec("beside")
    spec["instances"][0]["argv"] = ["s", "--no-mmap"]
    with pytest.raises(HostError, match=r"host memory has 399 MiB, it needs 1000.*give --stop"):
        bench.bench(spec)
    # Mapped weights need no memory: 400 MiB of the 1000 are needed.
    spec["instances"][0]["argv"] = ["s", "--load-mode", "mmap"]
    with pytest.raises(HostError, match="host memory has 399 MiB, it needs 400"):
        bench.bench(spec)
    assert machine.commands == []


def test_every_gpu_of_the_set_must_have_room(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {0: 1000, 1: 999}
    monkeypatch.setattr(bench.nvidia_smi, "ask", dict)
    monkeypatch.setattr(bench, "gpu_room", lambda gpu, *_: {"there": free[gpu]})
    spec = machine.spec("beside")
    spec["instances"][0] |= {"gpus": [0, 1], "argv": ["s", "--load-mode", "mmap"]}
    spec["instances"][0]["need"]["gpus"] = [NEED, NEED]
    with pytest.raises(HostError, match="server: GPU 1 has 999 MiB, it needs 1000. Next"):
        bench.bench(spec)


def test_what_is_not_known_to_fit_is_refused_beside(machine: Machine) -> None:
    spec = machine.spec("beside")
    spec["instances"][0]["need"]["unknown"] = "the hub cannot be reached"
    with pytest.raises(HostError, match="not known .the hub cannot be reached.*give --stop"):
        bench.bench(spec)


def test_two_at_once_on_a_host_are_refused(machine: Machine) -> None:
    spec, reported = machine.spec(), "a benchmark of other runs on this host. Next: wait"
    with bench.only_one({**spec, "instance": "other"}), pytest.raises(HostError, match=reported):
        bench.bench(spec)
    assert machine.commands == []
    assert bench.bench(spec)["where"] == "stopped"


def test_with_a_full_disk_nothing_is_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        bench.bench(machine.spec())
    assert machine.commands == []


def test_a_killed_benchmark_is_settled_by_starting_its_server(machine: Machine) -> None:
    spec = machine.spec()
    assert bench.settle_bench(spec) is None
    assert machine.commands == []
    (machine.root / "benching.json").write_text(json.dumps({"boot_id": boot_id()}))
    reported = "the benchmark was interrupted; chat was started again"
    assert str(bench.settle_bench(spec)).startswith(reported)
    assert machine.commands[0] == "stop corral-bench-chat.service"
    assert machine.commands[-1] == "start corral-chat.service"
    assert bench.settle_bench(spec) is None


def test_a_server_that_cannot_be_started_again_is_told(machine: Machine) -> None:
    program(machine.root / "bin", "systemctl", 'case "$1" in start) echo no >&2; exit 1;; esac')
    (machine.root / "benching.json").write_text(json.dumps({"boot_id": boot_id()}))
    assert "chat IS DOWN: systemctl start" in str(bench.settle_bench(machine.spec()))
    assert (machine.root / "benching.json").exists()


def test_the_processor_has_a_name() -> None:
    done = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True)
    named = bench_run.cpu_name()
    assert named
    assert named in Path("/proc/cpuinfo").read_text() or named == done.stdout.strip()
