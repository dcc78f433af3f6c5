"""Measuring what servers hold on GPUs, with a server and an nvidia-smi of the test's own."""

from __future__ import annotations

import json
import lzma
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.held_servers import CUT, MADE, PROJECTORS, SERVERS
from lab.held_settings import described
from lab.measure_servers import __main__ as command
from lab.measure_servers.build import Build, with_nccl
from lab.measure_servers.server import png
from lab.measure_servers.table import predicted_anew, tables
from tests.unit.fit_samples import AIR, header

_SERVER = """
import http.server, json, sys, threading

if "--refused" in sys.argv:
    sys.exit("error: invalid argument: --refused")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer measured"
        if self.path == "/v1/chat/completions":
            self.answer({"usage": {"prompt_tokens": 9}})
        else:
            speeds = {"prompt_per_second": len(body["prompt"]), "predicted_per_second": 2.0}
            self.answer({"timings": speeds})

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

print("CUDA0 model buffer size = 12.50 MiB\\nNCCL initialized", flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
_SMI = """
import os, sys

if "index" in sys.argv[1]:
    print("0")
elif "compute-apps" in sys.argv[1]:
    own = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_server(pid)]
    print("\\n".join(f"GPU-a, {pid}, 1000" for pid in own))
else:
    print("GPU-a")
"""
_IS_SERVER = """
def is_server(pid):
    try:
        return SERVER in open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return False
"""
_NVCC = (
    "/usr/local/cuda/bin/nvcc -DNDEBUG -I/src -std=c++20 -MD -MT ggml/src/dir/ggml-cuda.cu.o "
    "-MF ggml/src/dir/ggml-cuda.cu.o.d -x cu -c /src/ggml-cuda.cu -o ggml/src/dir/ggml-cuda.cu.o"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on a machine where llama.cpp is built; returns its rows."""
    bin_folder, work, folder = (tmp_path / name for name in ("bin", "work", "folder"))
    build = work / "llama.cpp" / "build" / "bin"
    for path in (bin_folder, build, folder):
        path.mkdir(parents=True)
    program = build / "llama-server"
    _script(program, _SERVER)
    _script(bin_folder / "nvidia-smi", f"SERVER = {str(program)!r}\n{_IS_SERVER}{_SMI}")
    link = "c++ -o bin/llama-server  ggml/src/libggml.a  /cuda/lib64/libcudart.so"
    _script(bin_folder / "ninja", f"print({link!r})")
    for mark in ("started", "built", "ended"):
        (work / f"llama.cpp.{mark}").touch()
    (folder / "small.xz").write_bytes(lzma.compress(b"GGUF"))
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")

    def call(*servers: dict[str, Any], seconds: int = 60) -> list[dict[str, Any]]:
        settings = {
            "engines": [{"name": "llama.cpp", "archive": "none", "cmake_options": []}],
            "files": {"small": 4096},
            "servers": [{**_setting(), **server} for server in servers],
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        options = ["--out", str(tmp_path / "out"), "--work", str(work)]
        argv = ["measure_servers", str(folder), *options, "--for-seconds", str(seconds)]
        monkeypatch.setattr(sys, "argv", argv)
        command.main()
        text = (tmp_path / "out" / "rows.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return call


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


def _setting() -> dict[str, Any]:
    return {
        "name": "small", "round": 1, "engine": "llama.cpp", "nccl": False, "files": ["small"],
        "gpus": 1, "argv": ["{program}", "--model", "{small}", "--port", "{port}"],
        "more_flags": [], "prompts": [5, 6], "answer_tokens": 4, "image_pixels": 0,
        "quiet": False, "seconds": 20, "placement": "all layers on GPUs", "budgets_gib": [],
        "predicted_mib": [1010], "parts_mib": [[1, 2, 3, 4]],
    }  # fmt: skip


def test_a_server_is_asked_and_what_it_holds_is_kept(run: Any, tmp_path: Path) -> None:
    (row,) = run({"image_pixels": 28})
    assert (row["held_mib"], row["predicted_mib"]) == ([1000], [1010])
    assert row["speeds"] == [[5, 2.0], [6, 2.0]]
    assert row["image_tokens"] == 9
    assert row["reduces"] == ["NCCL initialized"]
    assert row["buffers"] == ["CUDA0 model buffer size = 12.50 MiB"]
    assert not list(tmp_path.glob("work/*.gguf")), "nobody needs the model any more"


def test_what_fails_is_tried_once_more_and_what_has_a_row_is_left_out(
    run: Any, tmp_path: Path
) -> None:
    good, bad = {"name": "good"}, {"name": "bad", "more_flags": ["--refused"]}
    rows = run(bad, good)
    assert [row["name"] for row in rows] == ["bad", "good", "bad"]
    assert "invalid argument" in rows[0]["error"]
    assert "=== llama.cpp bad 1" in (tmp_path / "out" / "logs.txt").read_text()
    assert run(bad, good) == rows


def test_a_server_that_takes_longer_than_is_left_is_not_started(run: Any) -> None:
    assert run({"seconds": 20}, seconds=15) == []


def test_speeds_wait_for_builds_and_nccl_for_its_own_server(run: Any, tmp_path: Path) -> None:
    ended = tmp_path / "work" / "llama.cpp.ended"
    ended.unlink()
    speed = {"name": "speed", "quiet": True, "seconds": 1}
    rows = run(speed, {"name": "memory", "seconds": 1}, seconds=12)
    assert [row["name"] for row in rows] == ["memory"]
    ended.touch()
    rows = run(speed, {"name": "nccl", "nccl": True})
    assert [row["name"] for row in rows] == ["memory", "speed"]


def test_one_compilation_is_done_again_with_nccl(tmp_path: Path) -> None:
    changed = with_nccl(_NVCC, tmp_path, Path("/nccl/include")).split()
    assert changed[:3] == ["/usr/local/cuda/bin/nvcc", "-DGGML_USE_NCCL", "-I/nccl/include"]
    assert changed[-2:] == ["-o", f"{tmp_path}/ggml-cuda.cu.o"]
    assert changed[changed.index("-MF") + 1] == f"{tmp_path}/ggml-cuda.cu.o.d"
    assert with_nccl(_NVCC.replace("ggml-cuda.cu", "mmq.cu"), tmp_path, Path("/nccl")) == ""
    assert with_nccl("c++ -o bin/llama-server ggml-cuda.cu.o", tmp_path, Path("/nccl")) == ""


def test_the_second_server_is_linked_of_changed_objects_and_nccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(tmp_path, "ik_llama.cpp")
    archive = build.folder / "ggml/src/libggml.a"
    archive.parent.mkdir(parents=True)
    archive.write_text("whole")
    (build.folder / "nccl").mkdir()
    (build.folder / "nccl" / "reduce.cu.o").write_text("changed")
    programs, wheel = tmp_path / "bin", tmp_path / "site" / "nvidia" / "nccl"
    for path in (wheel / "include" / "nccl.h", wheel / "lib" / "libnccl.so.2", programs / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    link = f"{programs}/c++ x.o -o bin/llama-server  src/libllama.a  ggml/src/libggml.a  -lm"
    _script(programs / "ninja", f"print({link!r})")
    for name in ("ar", "c++"):
        _script(
            programs / name,
            f"import sys; open({str(tmp_path / name)!r}, 'w').write(' '.join(sys.argv[1:]))",
        )
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    build.link_with_nccl()
    own = build.folder / "nccl"
    assert (tmp_path / "ar").read_text() == f"r {own}/libggml.a {own}/reduce.cu.o"
    assert (tmp_path / "c++").read_text().split() == [
        "x.o", "-o", "bin/llama-server-nccl", "src/libllama.a", f"{own}/libggml.a",
        f"{wheel}/lib/libnccl.so.2", "-lm",
    ]  # fmt: skip


def test_each_server_has_a_name_of_its_own_and_models_that_are_written() -> None:
    assert len({(s.engine, s.name, s.round) for s in SERVERS}) == len(SERVERS)
    named = {name for s in SERVERS for name in (s.model, s.projector, s.draft) if name}
    assert named == {*MADE, *CUT, *PROJECTORS}


def test_a_plan_for_unequal_gpus_is_what_corral_fit_would_say() -> None:
    (server,) = [s for s in SERVERS if s.budgets_gib == (24, 40)]
    found = described(replace(server, model=AIR), {AIR: header(AIR)})
    line = shlex.join(found["argv"])
    assert "--device CUDA0,CUDA1" in line
    assert "--tensor-split 22912,39296" in line
    assert "experts" in found["placement"]
    held = [mib + 1024 + 640 for mib in found["predicted_mib"]]
    assert all(mib <= gib * 1024 for mib, gib in zip(held, (24, 40), strict=True))


def test_tables_name_the_largest_error_and_the_speeds_of_all_rounds() -> None:
    row = {**_setting(), "held_mib": [1000], "quiet": True, "speeds": [[10.0, 1.0]]}
    again = {**row, "round": 2, "predicted_mib": [900], "speeds": [[30.0, 3.0]]}
    with_nccl_row = {**row, "name": "nccl", "nccl": True, "held_mib": [2000], "speeds": []}
    failed = {**_setting(), "name": "bad", "error": "RuntimeError: exit 1: no | memory\n"}
    died = {**failed, "name": "dies", "most_mib": [1005]}
    lines = tables([{**row, "error": "", "held_mib": []}, failed, died, row, again, with_nccl_row])
    assert "| llama.cpp | small | all layers on GPUs | 1010 | 1000 | +1.0% |" in lines
    placed = "| llama.cpp | bad | all layers on GPUs | 1010"
    assert f"{placed} | failed: RuntimeError: exit 1: no / memory | |" in lines
    placed = "| llama.cpp | dies | all layers on GPUs | 1010"
    assert f"{placed} | 1005, then failed: RuntimeError: exit 1: no / memory | +0.5% |" in lines
    assert "Largest error -10.0%: llama.cpp, small." in lines
    assert len([line for line in lines if "| small | all" in line]) == 1, "the latest of each"
    assert lines[-1] == "| llama.cpp | small | 20.0 (10.0-30.0) | 2.0 (1.0-3.0) |"


def test_an_image_is_a_png_of_its_size() -> None:
    image = png(28)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert image[16:24] == (28).to_bytes(4, "big") * 2


def test_rows_can_be_compared_with_what_is_predicted_today() -> None:
    rows: list[dict[str, Any]] = [
        {"engine": "a", "name": "x", "predicted_mib": [1]},
        {"engine": "b", "name": "x"},
    ]
    servers = [{"engine": "a", "name": "x", "predicted_mib": [2]}]
    assert predicted_anew(rows, servers) == [{"engine": "a", "name": "x", "predicted_mib": [2]}]
