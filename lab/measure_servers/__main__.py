"""Build both engines with CUDA, and measure servers as soon as their engine is built.

    python3 -m lab.measure_servers FOLDER --out OUT --for-seconds 570

FOLDER is written by ``python -m lab.held_settings``: the engines' sources, headers of models and
settings.json with the arguments of each server and the memory that was predicted for it. Needs a
machine with GPUs, cmake, ninja and nvcc; no network and none of Corral's packages. The command can
be given again until it has measured all: builds go on, and servers that have a row are left out.
OUT gets rows.jsonl, logs.txt and the ends of the builds' logs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import lzma
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.measure_servers.build import Build, start_all
from lab.measure_servers.server import gpu_count, measure
from lab.measure_servers.table import line, tables

_WORK = Path("/tmp/held")  # noqa: S108 - a machine of one user
_KEPT = ("name", "round", "engine", "nccl", "quiet", "gpus", "placement", "budgets_gib",
         "predicted_mib", "parts_mib", "prompts")  # fmt: skip
_TRIES = 2
_STOP_SECONDS = 8
_LOGGED = 6000
_ENVIRONMENT = {
    "GGML_NO_BACKTRACE": "1",
    # The order of nvidia-smi.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # NVLink multicast stays off: where machines share a host's GPUs, it can put all out of service.
    "NCCL_NVLS_ENABLE": "0",
}

_FAILURES = (
    OSError, RuntimeError, KeyError, ValueError, subprocess.SubprocessError,
    http.client.HTTPException,
)  # fmt: skip

Server = dict[str, Any]


@dataclass
class Run:
    """One call of the command.

    + folder: what held_settings wrote; + work: on this machine, kept from call to call
    """

    folder: Path
    work: Path
    out: Path
    until: float
    files: dict[str, int]
    servers: list[Server]
    builds: dict[str, Build]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def measure_all(self) -> None:
        """Measure until everything has a row or the time is over."""
        while self.todo():
            server = self._next()
            if server is not None:
                self._measure(server)
            elif self._waits() and time.monotonic() + _STOP_SECONDS < self.until:
                time.sleep(1)
            else:
                break
        self._write()

    def todo(self) -> list[Server]:
        """Servers without a row; then those that failed, once more."""
        tried = Counter(_name(row) for row in self.rows)
        good = {_name(row) for row in self.rows if "error" not in row}
        left = [one for one in self.servers if _name(one) not in good]
        return sorted(
            (one for one in left if tried[_name(one)] < _TRIES), key=lambda one: tried[_name(one)]
        )

    def _next(self) -> Server | None:
        """The first that can be measured now, and in the time that is left."""
        left = self.until - time.monotonic() - _STOP_SECONDS
        is_quiet = all(build.has_ended for build in self.builds.values())
        for server in self.todo():
            program = self.builds[server["engine"]].program(nccl=server["nccl"])
            if program and (is_quiet or not server["quiet"]) and server["seconds"] <= left:
                return server
        return None

    def _waits(self) -> bool:
        return not all(build.has_ended for build in self.builds.values())

    def _measure(self, server: Server) -> None:
        build = self.builds[server["engine"]]
        row = {key: server[key] for key in _KEPT}
        log = self.work / "server.log"
        started = time.monotonic()
        try:
            places = {f"{{{name}}}": str(self._file(name)) for name in server["files"]}
            places["{keys}"] = str(self.work / "keys")
            places["{program}"] = str(build.program(nccl=server["nccl"]))
            environment = _environment(build.library_folders(nccl=server["nccl"]))
            measure(server, places, environment, log, self.until - _STOP_SECONDS, row)
        except _FAILURES as error:
            row["error"] = f"{type(error).__name__}: {error}"
            self._keep_log(server, log)
        self.rows.append(row)
        self._write()
        self._forget_files()
        print(f"{time.monotonic() - started:.0f} s {line(row)} {row.get('speeds', '')}", flush=True)

    def _file(self, name: str) -> Path:
        """A model without weights: its header, and holes."""
        path = self.work / f"{name}.gguf"
        if not path.exists():
            path.write_bytes(lzma.decompress((self.folder / f"{name}.xz").read_bytes()))
            os.truncate(path, self.files[name])
        return path

    def _forget_files(self) -> None:
        """Remove models that nobody needs any more, with their pages in memory."""
        needed = {name for one in self.todo() for name in one["files"]}
        for name in self.files:
            if name not in needed:
                (self.work / f"{name}.gguf").unlink(missing_ok=True)

    def _keep_log(self, server: Server, log: Path) -> None:
        text = log.read_text(errors="replace") if log.exists() else ""
        with (self.work / "logs.txt").open("a") as kept:
            kept.write(f"\n=== {_name(server)}\n{text[-_LOGGED:]}")

    def _write(self) -> None:
        """All rows of all calls, here and for whoever asked."""
        text = "".join(f"{json.dumps(row)}\n" for row in self.rows)
        for folder in (self.work, self.out):
            (folder / "rows.jsonl").write_text(text)
        logs = self.work / "logs.txt"
        if logs.exists():
            (self.out / "logs.txt").write_text(logs.read_text())
        for build in self.builds.values():
            (self.out / build.log.name).write_text(build.end_of_log())


def main() -> None:
    """Build and measure."""
    started = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--for-seconds", type=float, default=570)
    parser.add_argument("--work", type=Path, default=_WORK)
    given = parser.parse_args()
    for folder in (given.work, given.out):
        folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads((given.folder / "settings.json").read_text())
    (given.work / "keys").write_text("measured\n")
    builds = start_all(given.work, given.folder, settings["engines"])
    count = gpu_count()
    old = given.work / "rows.jsonl"
    run = Run(
        folder=given.folder, work=given.work, out=given.out, until=started + given.for_seconds,
        files=settings["files"], builds={build.name: build for build in builds},
        servers=[server for server in settings["servers"] if server["gpus"] <= count],
        rows=[json.loads(text) for text in old.read_text().splitlines()] if old.exists() else [],
    )  # fmt: skip
    run.measure_all()
    print("\n".join(tables(run.rows)))
    left = [_name(server) for server in run.todo()]
    print(f"{len(left)} left: {', '.join(left)}" if left else "nothing left", flush=True)
    for build in builds:
        if build.has_failed:
            print(f"{build.name} was not built:\n{build.end_of_log()}", flush=True)
        elif build.program(nccl=False):
            print(f"{build.name} was built in {build.seconds} s", flush=True)


def _environment(libraries: list[str]) -> dict[str, str]:
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    found = ":".join(path for path in (*libraries, inherited) if path)
    return {**_ENVIRONMENT, "LD_LIBRARY_PATH": found}


def _name(row: dict[str, Any]) -> str:
    return f"{row['engine']} {row['name']} {row['round']}"


if __name__ == "__main__":
    main()
