"""A tiny engine: a compiled program with a library of its own, whose server is a few lines."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.unit.helper_modules import helper_module

COMMIT = "c0ffee" + "0" * 34
RPATH = ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--disable-new-dtags"]
HELP = "".join(
    f"{line}\\n"
    for line in (
        "-h, --help    help",
        "--version    version",
        "--list-devices    GPUs",
        "--model FILE    model",
        "-c,   --ctx-size N  context",
        "--draft N   has been removed",
    )
)

_SOURCE = """
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    static const char *known[] = {"--help", "--ctx-size", "--unlisted"};
    const char *first = count > 1 ? words[1] : "";
    if (!omp_get_max_threads()) return 3;
    if (!strcmp(first, "--version")) return fputs(VERSION "\\n", stderr) < 0;
    if (!strcmp(first, "--help")) return puts(HELP) < 0;
    if (!strcmp(first, "--list-devices")) return puts(DEVICES) < 0;
    if (!strcmp(first, "--model")) {
        words[0] = SERVER;
        return execv(words[0], words);
    }
    if (!strcmp(first, "--picky"))
        return fputs("error: invalid parameter for argument: --picky\\n", stderr) >= 0;
    for (int i = 0; i < 3; i++) if (!strcmp(first, known[i])) first = words[3];
    return fprintf(stderr, "error: invalid argument: %s\\n", first) > 0;
}
"""

_SERVER = """#!{python} -IS
import http.server, json, sys
words = sys.argv
key = open(words[words.index("--api-key-file") + 1]).read().strip()
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {{"status": "ok"}})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == f"Bearer {{key}}"
        self.answer(*({answers}))
    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
{first}
port = int(words[words.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""
ANSWERS = '(200, {"usage": {"completion_tokens": 24}}) if known else (401, {})'
_NAMES = {"engine": "llama.cpp", "key": "c0ffee-cpu-1"}
_VERSION = f"version: 0.5.0-dev (build 1, commit {COMMIT[:7]})"


# Any user can run it, which a Python below somebody's home folder need not be.
_PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


class Engine:
    """Where the programs of a fake engine are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)

    def make(
        self,
        path: Path,
        *,
        version: str = _VERSION,
        devices: str = "",
        rpath: bool = True,
        answers: str = ANSWERS,
        first: str = "",
    ) -> Path:
        """Compile a server to ``path``; each of its kinds once. + first: what it does at start."""
        made = [version, devices, str(rpath), answers, first]
        cached = self.folder / hashlib.sha256("|".join(made).encode()).hexdigest()[:16]
        if not cached.exists():
            script = cached.with_suffix(".py")
            script.write_text(_SERVER.format(python=_PYTHON, answers=answers, first=first))
            script.chmod(0o755)
            told = {"VERSION": version, "HELP": HELP, "DEVICES": devices, "SERVER": str(script)}
            _compile(cached, [f'-D{name}="{text}"' for name, text in told.items()], rpath)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cached, path)
        return path


def _compile(path: Path, words: list[str], rpath: bool) -> None:
    command = ["cc", "-fopenmp", "-x", "c", *words, *(RPATH if rpath else []), "-o", str(path), "-"]
    subprocess.run(command, input=_SOURCE, text=True, check=True)


def release(folder: Path, **changes: Any) -> dict[str, Any]:
    """The spec of a job, for this machine and below ``folder``."""
    toolchain = helper_module("release.toolchain")
    model = folder / "tiny.gguf"
    model.write_bytes(b"GGUF")
    return {
        "engine": "llama.cpp",
        "kind": "llama.cpp",
        "key": "c0ffee-cpu-1",
        "commit": COMMIT,
        "artifact": {
            "kind": "cmake-build",
            "source_url": "https://git.invalid/llama.cpp",
            "patches": [],
            "cmake_options": ["-DCMAKE_BUILD_TYPE=Release"],
            "targets": ["llama-server"],
            "toolchain": {
                "platform": "debian-12",
                "compiler": toolchain.compiler_version().split(".")[0],
                "c_library": toolchain.c_library(),
                "cuda_toolkit": None,
            },
        },
        "backend": "cpu",
        "native": False,
        "folder": str(folder / "engines" / "llama.cpp" / "c0ffee-cpu-1"),
        "scratch_bytes": 1,
        "installed_bytes": 1,
        "limits": {"unpacked_bytes": 2**34, "unpacked_files": 10_000},
        "compiler_cache": str(folder / "ccache"),
        "state": str(folder / "state"),
        "smoke_model": {"path": str(model), "sha256": hashlib.sha256(b"GGUF").hexdigest()},
        **changes,
    }


def of(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same release, made in another way."""
    return {**spec, "artifact": {**spec["artifact"], **changes}}


def assemble(spec: dict[str, Any], engine: Engine, staging: Path, **made: Any) -> None:
    """Stripped programs and their libraries, as a build makes them."""
    built = Path(tempfile.mkdtemp(dir=engine.folder))
    built.chmod(0o755)
    engine.make(built / "llama-server", **made)
    with helper_module("system.unprivileged").home_of_nobody() as home:
        done = Path(home) / "made"
        helper_module("release.build").assemble({**_NAMES, **spec}, built, done, [], home)
        for part in ("bin", "lib"):
            shutil.copytree(done / part, staging / part)
    helper_module("system.modes").open_release(staging)
    shutil.rmtree(built)


def install(spec: dict[str, Any], engine: Engine, **made: Any) -> Path:
    """A release in its place, as a build leaves it; gives its folder.

    Programs and libraries of each kind are assembled once.
    """
    folders, done = helper_module("system.folders"), helper_module("release.manifest")
    folder = Path(spec["folder"])
    kind = hashlib.sha256(
        repr((spec["artifact"]["targets"], sorted(made.items()))).encode()
    ).hexdigest()[:16]
    assembled = engine.folder / f"assembled-{kind}"
    if not assembled.exists():
        assemble(spec, engine, assembled, **made)
    with folders.staging_for(folder) as staging:
        shutil.copytree(assembled, staging, dirs_exist_ok=True)
        proof = {"smoke": "24 tokens on CPU", "devices": []}
        found = {"compiler": "c++ 12", "c_library": "2.36", "cuda": None}
        document = done.manifest(
            spec,
            staging,
            found={**found, "cpu": helper_module("observe.state").cpu()},
            flags=["--help"],
            built_at="2026-10-02T00:00:00Z",
            build_seconds=1,
            **proof,
        )
        done.finish(spec, staging, document, proof)
    return folder
