"""The smoke run of a release: a real process, a real port, no leftovers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from corral.smoke_model.fixture import SmokeModel
from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine, release

pytestmark = pytest.mark.slow

smoke = helper_module("release.smoke")
done = helper_module("release.manifest")
programs = helper_module("release.programs")
HostError = helper_module("system.commands").HostError

DEVICE = "  CUDA0: NVIDIA H200 (143167 MiB, 142651 MiB free)"
IK_LOG = (
    "ggml_cuda_init: found 1 CUDA devices:\\n"
    "  Device 0: NVIDIA H200, compute capability 9.0, VMM: yes, VRAM: 143167 MiB"
)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.no_gpu(monkeypatch)


def run(spec: dict[str, Any], tmp_path: Path, engine: Engine, **made: Any) -> tuple[str, str]:
    folder = tmp_path / "staging"
    engine.make(folder / "bin" / "llama-server", **made)
    with programs.bare_environment() as environment:
        reported: tuple[str, str] = smoke.smoke(spec, folder, environment)
    return reported


def children() -> list[str]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_it_answers_with_its_key_only_and_is_gone(tmp_path: Path, engine: Engine) -> None:
    before = children()
    hello = 'print("hello", flush=True)'
    reported, log = run(release(tmp_path), tmp_path, engine, first=hello)
    assert reported == "24 tokens on CPU"
    assert "hello" in log
    assert children() == before


def test_its_key_is_no_flag(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM takes a key that begins with a dash for one."""
    given: list[str] = []
    kind = type(helper_module("engines").of(release(tmp_path)))
    write = kind.key_document

    def noted(self: Any, keys: list[str]) -> str:
        given.extend(keys)
        text: str = write(self, keys)
        return text

    monkeypatch.setattr(kind, "key_document", noted)
    run(release(tmp_path), tmp_path, engine)
    assert re.fullmatch("[0-9a-f]{64}", given[0])


def test_an_answer_without_the_key_fails_the_release(tmp_path: Path, engine: Engine) -> None:
    open_door = '(200, {"usage": {"completion_tokens": 24}})'
    before = children()
    with pytest.raises(HostError, match="without a key was answered 200, not 401"):
        run(release(tmp_path), tmp_path, engine, answers=open_door)
    assert children() == before


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        ("(500, {})", "a completion was answered 500"),
        ('(200, {"usage": {"completion_tokens": 0}})', "a completion was answered 200"),
        ("(200, {})", "KeyError|'usage'"),
    ],
)
def test_no_tokens_fail_the_release(
    tmp_path: Path, engine: Engine, answer: str, reported: str
) -> None:
    with pytest.raises(HostError, match=reported):
        run(release(tmp_path), tmp_path, engine, answers=f"{answer} if known else (401, {{}})")


def test_a_server_that_dies_is_told_with_its_last_lines(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(HostError, match="ended at start with exit code 1(?s:.*)NameError"):
        run(release(tmp_path), tmp_path, engine, first="nobody")


def test_a_server_that_never_answers_is_ended(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = helper_module("engines").ENGINES["llama.cpp"]
    monkeypatch.setattr(type(llama), "ready_seconds", 0.3)
    monkeypatch.setattr(smoke, "END_SECONDS", 0.1)
    before = children()
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    with pytest.raises(HostError, match=r"not ready within 0\.3 s"):
        run(release(tmp_path), tmp_path, engine, first=deaf)
    assert children() == before


@pytest.mark.parametrize("content", [None, b"GGUG"])
def test_another_model_than_planned_is_refused(
    tmp_path: Path, engine: Engine, content: bytes | None
) -> None:
    spec = release(tmp_path)
    Path(spec["smoke_model"]["path"]).unlink()
    if content:
        Path(spec["smoke_model"]["path"]).write_bytes(content)
    with pytest.raises(HostError, match="missing or differs from the plan"):
        run(spec, tmp_path, engine)


def test_the_key_is_in_no_argument(tmp_path: Path, engine: Engine) -> None:
    report = "print(open('/proc/self/cmdline').read(), key, sep='\\0', flush=True)"
    _, log = run(release(tmp_path), tmp_path, engine, first=report)
    *arguments, key = log.splitlines()[0].split("\0")
    assert len(key) > 30
    assert key not in " ".join(arguments)


@pytest.mark.parametrize(
    ("free", "arguments", "visible"),
    [
        ((500, 4000, 2000), "24 tokens on CUDA1", "GPU-1"),
        ((500,), "24 tokens on CPU", ""),
    ],
)
def test_the_gpu_with_most_room_is_used_if_it_has_room(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    free: tuple[int, ...],
    arguments: str,
    visible: str,
) -> None:
    hosts.gpus(monkeypatch, *free)
    seen = "import os; print('visible=' + os.environ['CUDA_VISIBLE_DEVICES'] + '!', flush=True)"
    reported, log = run(release(tmp_path, backend="cuda"), tmp_path, engine, first=seen)
    assert reported == arguments
    assert f"visible={visible}!" in log


def proof(spec: dict[str, Any], tmp_path: Path, engine: Engine, **made: Any) -> dict[str, Any]:
    staging = tmp_path / "staging"
    staging.mkdir()
    samples.assemble(spec, engine, staging, **made)
    found: dict[str, Any] = done.prove(spec, staging)
    return found


def test_mainline_lists_its_gpus(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.gpus(monkeypatch, 4000)
    found = proof(release(tmp_path, backend="cuda"), tmp_path, engine, devices=DEVICE)
    assert found == {"smoke": "24 tokens on CUDA0", "devices": [DEVICE.strip()]}


def test_ik_logs_its_gpus(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.gpus(monkeypatch, 4000)
    spec = release(tmp_path, backend="cuda", kind="ik_llama.cpp")
    found = proof(spec, tmp_path, engine, first=f'print("{IK_LOG}", flush=True)')
    name = "CUDA0: NVIDIA H200, compute capability 9.0, VMM: yes, VRAM: 143167 MiB"
    assert found["devices"] == [name]


@pytest.mark.parametrize("kind", ["llama.cpp", "ik_llama.cpp"])
def test_a_back_end_that_finds_no_gpu_is_refused(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hosts.gpus(monkeypatch, 4000)
    with pytest.raises(HostError, match="nvidia-smi lists GPUs, the server's CUDA back end finds"):
        proof(release(tmp_path, backend="cuda", kind=kind), tmp_path, engine)


def test_without_a_gpu_the_back_end_is_left_out_and_said_so(
    tmp_path: Path, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    found = proof(release(tmp_path, backend="cuda"), tmp_path, engine)
    assert found["devices"] == []
    assert "no GPU here" in capfd.readouterr().out


def test_a_model_of_several_files_is_unpacked_for_the_run(tmp_path: Path) -> None:
    """As vLLM loads a folder; its files belong to the owner of the run's home."""
    model, home = SmokeModel("safetensors"), tmp_path / "home"
    home.mkdir()
    packed = tmp_path / "smoke-model.zip"
    packed.write_bytes(model.content())
    checked = smoke.checked_model({"path": str(packed), "sha256": model.sha256()})
    copy = smoke.own_copy(checked, home / "model")
    assert copy == home / "model"
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {
        p.name for p in copy.iterdir()
    }
    assert {path.owner() for path in copy.iterdir()} == {home.owner()}


def test_a_model_of_one_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    copy = smoke.own_copy(str(tmp_path / "m.gguf"), tmp_path / "model")
    assert copy.read_bytes() == b"GGUF"


def test_a_release_that_runs_on_gpus_alone_is_left_to_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.gpus(monkeypatch, 1000)
    vllm = helper_module("engines").ENGINES["vllm"]
    spec = {**release(tmp_path), "kind": vllm.kind, "backend": "cuda"}
    summary, _ = smoke.smoke(spec, tmp_path, {"HOME": str(tmp_path)})
    assert summary == "not tried: no GPU was free"
