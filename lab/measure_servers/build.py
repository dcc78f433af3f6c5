"""Builds of both engines with CUDA, side by side, and a second server with NCCL of each.

Corral builds without NCCL. The second server is the first one with those objects compiled again
whose source asks for NCCL, so that it takes seconds and not minutes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER, NCCL_SERVER = "llama-server", "llama-server-nccl"
_SHOWN = 3000
_MODULE = "lab.measure_servers.build"
# The lower ones of an engine's builds wait for the first, which is smaller.
_NICE = {"llama.cpp": 0, "ik_llama.cpp": 10}
_GROW_GIB = 48
_LIBRARY = re.compile(r"\.so[.0-9]*$")
_DEFINED = "GGML_USE_NCCL"
# Objects of each engine whose source depends on it.
_OBJECTS = ("ggml-cuda.cu.o", "reduce.cu.o")
# What has them: in mainline the first that is linked, in ik_llama.cpp the other.
_ARCHIVES = ("ggml/src/ggml-cuda/libggml-cuda.a", "ggml/src/libggml.a")


@dataclass(frozen=True)
class Build:
    """The build of an engine below ``work``."""

    work: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.work / self.name / "build"

    @property
    def log(self) -> Path:
        return self.work / f"build-{self.name}.log"

    def _mark(self, text: str) -> Path:
        return self.work / f"{self.name}.{text}"

    @property
    def is_started(self) -> bool:
        return self._mark("started").exists()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is compiled any more, whatever came of it."""
        return self._mark("ended").exists()

    @property
    def has_failed(self) -> bool:
        return self.has_ended and self.program(nccl=False) is None

    @property
    def seconds(self) -> int:
        """From its start until its server could be started."""
        started, built = (self._mark(mark).stat().st_mtime for mark in ("started", "built"))
        return round(built - started)

    def program(self, *, nccl: bool) -> Path | None:
        """The server, as soon as it can be started; None before, and where it failed."""
        path = self.folder / "bin" / (NCCL_SERVER if nccl else SERVER)
        made = self.has_ended if nccl else self._mark("built").exists()
        return path if made and path.exists() else None

    def start(self, archive: Path, options: list[str], jobs: int) -> None:
        """Unpack the sources and build in a session of its own, which outlives this program."""
        self._mark("started").touch()
        self._mark("ended").unlink(missing_ok=True)
        source = self.folder.parent
        source.mkdir(exist_ok=True)
        with tarfile.open(archive) as packed:
            packed.extractall(source, filter="data")
        configure = ["cmake", "-S", str(source), "-B", str(self.folder), "-G", "Ninja", *options]
        # Where memory was short, the rest is compiled by half as many.
        compile_, again = (
            shlex.join(["ninja", "-C", str(self.folder), "-j", str(count), SERVER])
            for count in (jobs, max(jobs // 2, 1))
        )
        objects, link = (
            shlex.join([sys.executable, "-m", _MODULE, str(self.work), self.name, step])
            for step in ("objects", "link")
        )
        script = self._mark("sh")
        script.write_text(
            f"trap 'touch {self._mark('ended')}' EXIT\n"
            f"date\n{shlex.join(configure)} || exit\n"
            # Beside the rest, as it would take a minute after it.
            f"{objects} & objects=$!\n"
            f"{{ {compile_} || {again}; }} && touch {self._mark('built')}\n"
            f"date\nwait $objects && {link}\ndate\n"
        )
        with self.log.open("wb") as log:
            subprocess.Popen(
                ["nice", "-n", str(_NICE[self.name]), "bash", "-x", str(script)],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def library_folders(self, *, nccl: bool) -> list[str]:
        """Folders of the shared libraries that the server is linked to."""
        words = shlex.split(_link(self._commands()))
        found = {str(Path(word).parent) for word in words if _LIBRARY.search(word)}
        found |= {str(nccl_files()[1].parent)} if nccl else set()
        return sorted(folder for folder in found if "/stubs" not in folder)

    def end_of_log(self) -> str:
        """What the build said last."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-_SHOWN:]

    def _commands(self) -> list[str]:
        command = ["ninja", "-C", str(self.folder), "-t", "commands", SERVER]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return output.splitlines()

    def compile_with_nccl(self) -> None:
        """The objects of the second server. Raises OSError or CalledProcessError."""
        header, _ = nccl_files()
        self._own.mkdir(exist_ok=True)
        commands = [with_nccl(line, self._own, header.parent) for line in self._commands()]
        running = [
            subprocess.Popen(line, shell=True, cwd=self.folder)  # noqa: S602
            for line in commands
            if line
        ]
        for one in running:
            if one.wait():
                raise subprocess.CalledProcessError(one.returncode, one.args)

    def link_with_nccl(self) -> None:
        """The second server, of its objects and all others. Raises OSError, CalledProcessError."""
        _, library = nccl_files()
        link = _link(self._commands())
        archive = next(path for path in _ARCHIVES if f" {path} " in link)
        changed = self._own / Path(archive).name
        shutil.copyfile(self.folder / archive, changed)
        objects = [str(path) for path in self._own.glob("*.o")]
        subprocess.run(["ar", "r", str(changed), *objects], check=True)
        link = link.replace(f"-o bin/{SERVER} ", f"-o bin/{NCCL_SERVER} ")
        link = link.replace(f" {archive} ", f" {changed} {library} ")
        subprocess.run(link, shell=True, cwd=self.folder, check=True)  # noqa: S602

    @property
    def _own(self) -> Path:
        return self.folder / "nccl"


def with_nccl(command: str, folder: Path, headers: Path) -> str:
    """A compilation with NCCL, to an object in ``folder``; empty where it makes no difference."""
    words = command.split()
    if "-o" not in words or "nvcc" not in words[0]:
        return ""
    made = words[words.index("-o") + 1]
    if Path(made).name not in _OBJECTS:
        return ""
    changed = folder / Path(made).name
    first, _, rest = command.partition(" ")
    rest = rest.replace(f"-o {made}", f"-o {changed}").replace(f"-MF {made}.d", f"-MF {changed}.d")
    return f"{first} -D{_DEFINED} -I{shlex.quote(str(headers))} {rest}"


def _link(commands: Sequence[str]) -> str:
    found = [line for line in commands if f"-o bin/{SERVER} " in line]
    if not found:
        raise OSError(f"no command links {SERVER}")
    return found[0]


def nccl_files() -> tuple[Path, Path]:
    """NCCL's header and library, of the distribution or of a wheel. Raises OSError."""
    found = []
    for name in ("nccl.h", "libnccl.so.2"):
        places = [path for root in _roots() for path in sorted(root.glob(f"nvidia/**/{name}"))]
        plain = [Path("/usr/include"), Path("/usr/lib/x86_64-linux-gnu"), *_cuda_folders()]
        places += [folder / name for folder in plain if (folder / name).exists()]
        if not places:
            raise OSError(f"no {name}")
        found.append(places[0])
    return found[0], found[1]


def _roots() -> Iterator[Path]:
    yield from (Path(entry) for entry in sys.path if entry and Path(entry).is_dir())


def _cuda_folders() -> list[Path]:
    return [Path("/usr/local/cuda/include"), Path("/usr/local/cuda/lib64")]


def start_all(work: Path, folder: Path, engines: list[dict[str, Any]]) -> list[Build]:
    """Start the builds that are not started or have failed, the smaller one first; returns all."""
    builds = [Build(work, engine["name"]) for engine in engines]
    if not any(build.is_started for build in builds):
        _grow()
    for build, engine in zip(builds, engines, strict=True):
        if build.has_failed or not build.is_started:
            build.start(folder / engine["archive"], engine["cmake_options"], os.cpu_count() or 1)
    return builds


def _grow() -> None:
    """Use memory for a moment: some machines have more of it only once it is used."""
    text = f"kept = [b'x' * 2**30 for _ in range({_GROW_GIB})]"
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if available > 2**34:
        subprocess.Popen([sys.executable, "-c", text], start_new_session=True)


if __name__ == "__main__":
    asked = Build(Path(sys.argv[1]), sys.argv[2])
    {"objects": asked.compile_with_nccl, "link": asked.link_with_nccl}[sys.argv[3]]()
