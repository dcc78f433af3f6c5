"""Serve one release natively and in an image, in turns, on a machine with a GPU. Standard library.

    python3 -m lab.measure_image FOLDER --program BUILD/bin/llama-server --out OUT

Runs as root in the root folder of the project, on a machine that is thrown away afterwards: it
installs the container program. FOLDER is written by ``python -m lab.image_settings``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import lzma
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.measure_held import ask, smi, wait

WORK = Path("/tmp/image")  # noqa: S108 - a machine of one user
_FAULTS = (OSError, RuntimeError, LookupError, ValueError, subprocess.SubprocessError)
_NOBODY = 65534
# As a unit: a user without privileges, who cannot get any.
_AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs")
_LOOP_CONTROL, _LOOP_CTL_GET_FREE = "/dev/loop-control", 0x4C82
# With its number: a toolkit's stub, which the loader may know, has none.
_LIBRARY = "libcuda.so.1"
_DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib")
# Ways to start a container, the one of a unit first: name, whether as root, key of the settings.
_WAYS = (
    ("user, mounted by squashfuse", False, "mounted"),
    ("user, unpacked at the start", False, "unpacked"),
    ("root, mounted", True, "mounted"),
    ("root, unpacked at the start", True, "unpacked"),
)
# The helper's own code, in a process of its own. A machine that is itself an image may have changed
# files of packages, which a host may not: there they are said and used.
_PACK = """
import json, shutil, subprocess, sys
from pathlib import Path
from corral_host.release import image, root_files
from corral_host.release.libraries import prove_self_contained, wanted_libraries
from corral_host.release.toolchain import toolkit_libraries
from corral_host.system.commands import HostError
given = json.load(sys.stdin)
program, inside = Path(given["program"]), Path(given["folders"]["native"])
target = Path(given["folders"]["image"])
for folder in (inside / "bin", inside / "lib", target):
    folder.mkdir(parents=True)
subprocess.run(["strip", "-o", inside / "bin" / program.name, program], check=True)
libraries = wanted_libraries([program], toolkit_libraries(given["nvcc"]), inside)
for name, path in libraries:
    shutil.copy(path, inside / "lib" / name)
prove_self_contained(inside, inside)
made = {key: given[key] for key in ("contents", "compression")}
artifact = {**made, "of": {"folder": str(inside)}}
release = {"artifact": artifact, "folder": str(target)}
file = target / "image.squashfs"
try:
    packages = image.squash(release, file)
except HostError as error:
    print(error, file=sys.stderr)
    shutil.rmtree(target / "root", ignore_errors=True)
    root_files.refuse_changed = lambda name: None
    packages = image.squash(release, file)
size = sum(path.stat().st_size for path in inside.rglob("*") if path.is_file())
found = {"packages": packages, "libraries": [name for name, _ in libraries]}
print(json.dumps({**found, "release_bytes": size, "image_bytes": file.stat().st_size}))
"""


def main() -> None:
    """Say what this machine allows, pack the image, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--gpu", default="0")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--for-seconds", type=int, default=240)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    report = Report(given.out / "image.json", time.monotonic() + given.for_seconds)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    settings = json.loads((given.folder / "image.json").read_text())
    report.step("installed", lambda: install(given.folder / "apptainer.tar.xz"))
    report.step("driver", find_driver)
    report.step("links", links)
    report.step("allows", allows)
    report.step("packed", lambda: pack({**settings, "program": str(given.program.resolve())}))
    report.step("kernel_mount", lambda: mounted_by_kernel(settings["folders"]["image"]))
    places = prepare(given.folder, settings, given.gpu)
    report.step("ways", lambda: ways(settings, places))
    if not any(one["works"] for one in listed(report.found["ways"])):
        report.step("without_terminals", without_terminals)
        report.step("ways", lambda: ways(settings, places))
    measure(report, settings, places, given)
    print("\n".join(table(report.found)), flush=True)


class Report:
    """What was found, written as it comes; a step that fails does not end the others."""

    def __init__(self, path: Path, deadline: float) -> None:
        self.path, self.deadline = path, deadline
        self.found: dict[str, Any] = {"rows": []}

    def step(self, name: str, found: Callable[[], Any]) -> None:
        """Keep what a function returns, or why it failed."""
        began = time.monotonic()
        try:
            value = found()
        except _FAULTS as error:
            value = {"error": said(error)}
        self.found[name] = value
        self.write()
        text = f"{name} ({time.monotonic() - began:.1f} s): {json.dumps(value)}"
        print(text[:1800], flush=True)

    def row(self, row: dict[str, Any]) -> None:
        """Keep one measured start."""
        self.found["rows"].append(row)
        self.write()
        print(json.dumps(row)[:1800], flush=True)

    def write(self) -> None:
        """Write all that is known."""
        self.path.write_text(json.dumps(self.found, indent=1))


def said(error: BaseException) -> str:
    """A fault with the end of what its program said."""
    output = getattr(error, "stderr", None) or ""
    return f"{type(error).__name__}: {error} {str(output)[-900:]}".strip()


def install(archive: Path) -> list[str]:
    """Unpack the container program and what is missing of its helpers; returns what was."""
    here = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    known = {line.split()[0] for line in here.splitlines() if "=>" in line}
    put = []
    with tarfile.open(archive) as packed:
        for member in packed:
            path = Path("/", member.name)
            library = member.name.startswith("usr/local/lib/")
            if (library and path.name in known) or (member.isfile() and path.exists()):
                continue
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            packed.extract(member, "/", filter="tar")
            if member.isfile():
                put.append(str(path))
    subprocess.run(["ldconfig"], check=True)
    return [path for path in put if not path.startswith("/etc")]


def links() -> list[str]:
    """Make links of /dev that a machine without udev may lack; returns what was missing."""
    wanted = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    missing = [name for name in wanted if not os.path.lexists(f"/dev/{name}")]
    for name in missing:
        Path("/dev", name).symlink_to(wanted[name])
    return missing


def find_driver() -> str:
    """See that the loader knows the driver's libraries, by which --nv looks for them."""
    if _LIBRARY in loader_cache():
        return f"{_LIBRARY} is known to the loader"
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_DRIVER_FOLDERS]
    named = [one for one in folders if one and (Path(one) / _LIBRARY).exists()]
    if not named:
        return f"there is no {_LIBRARY}"
    Path("/etc/ld.so.conf.d/measured-driver.conf").write_text("\n".join(named) + "\n")
    subprocess.run(["ldconfig"], check=True)
    return f"named {', '.join(named)} to the loader: {_LIBRARY in loader_cache()}"


def loader_cache() -> str:
    """What the loader knows."""
    return subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout


def allows() -> dict[str, Any]:
    """Whether user namespaces, /dev/fuse, loop devices and squashfs are to be had here."""
    kernel = Path("/proc/filesystems").read_text().split()
    return {
        "kernel": os.uname().release,
        "filesystems": [one for one in ("squashfs", "fuse", "overlay") if one in kernel],
        "settings": {path: value for path in _SETTINGS if (value := read(path)) is not None},
        "namespaces_of_a_user": tried([*_AS_NOBODY, *_NAMESPACES]),
        "namespaces_of_root": tried([*_NAMESPACES]),
        "fuse": or_why(fuse),
        "loop": or_why(loop),
        "apptainer": tried(["apptainer", "--version"]),
    }


_NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true")
_SETTINGS = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/self/uid_map",
)


def or_why(found: Callable[[], str]) -> str:
    """What a function returns, or why it failed."""
    try:
        return found()
    except _FAULTS as error:
        return said(error)


def read(path: str) -> str | None:
    """The words of a setting; None where the kernel does not have it."""
    with contextlib.suppress(OSError):
        return " ".join(Path(path).read_text().split())
    return None


def tried(command: list[str]) -> str:
    """What a program printed, or why it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    text = (done.stdout + done.stderr).strip()
    return text or "works" if done.returncode == 0 else f"exit {done.returncode}: {text[-300:]}"


def fuse() -> str:
    """Whether /dev/fuse opens; it is made, and opened to everybody as udev does."""
    path, made = Path("/dev/fuse"), ""
    if not path.exists():
        subprocess.run(["mknod", path, "c", "10", "229"], check=True)
        made = ", made here"
    mode = path.stat().st_mode & 0o777
    path.chmod(0o666)
    with path.open("r+b", buffering=0):
        return f"opens (mode was {mode:o}{made})"


def loop() -> str:
    """Whether the kernel has a free loop device."""
    with Path(_LOOP_CONTROL).open("rb") as control:
        return f"loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)} is free"


def pack(given: dict[str, Any]) -> dict[str, Any]:
    """Make the release and its image by the code of the host helper."""
    for folder in given["folders"].values():
        shutil.rmtree(folder, ignore_errors=True)
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    done = subprocess.run(
        [sys.executable, "-c", _PACK], input=json.dumps({**given, "nvcc": nvcc}), text=True,
        capture_output=True, check=True, timeout=240, env={**os.environ, "PYTHONPATH": "files"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "said": done.stderr[-600:]}


def mounted_by_kernel(folder: str) -> str:
    """Whether the kernel itself mounts the image, by a loop device."""
    target = WORK / "kernel"
    target.mkdir()
    options = ("-t", "squashfs", "-o", "loop,ro")
    tried_it = tried(["mount", *options, f"{folder}/image.squashfs", str(target)])
    if tried_it == "works":
        subprocess.run(["umount", target], check=True)
    return tried_it


def prepare(folder: Path, settings: dict[str, Any], gpu: str) -> dict[str, str]:
    """The model and a key; returns what the commands' placeholders stand for."""
    models, keys, home = WORK / "models", WORK / "keys", WORK / "home"
    models.mkdir()
    home.mkdir()
    os.chown(home, _NOBODY, _NOBODY)
    model = models / "model.gguf"
    model.write_bytes(lzma.decompress((folder / "model.xz").read_bytes()))
    os.truncate(model, settings["file_bytes"])
    keys.write_text("measured\n")
    return {"{models}": str(models), "{keys}": str(keys), "{gpu}": gpu}


def filled(words: list[str], places: dict[str, str]) -> list[str]:
    """A command without placeholders."""
    filled_in = []
    for word in words:
        for name, value in places.items():
            word = word.replace(name, value)
        filled_in.append(word)
    return filled_in


def container(settings: dict[str, Any], places: dict[str, str], way: int) -> list[str]:
    """What precedes the server's own command line in one of the ways."""
    _, as_root, key = _WAYS[way]
    command = filled(settings[key], places)
    if as_root:
        # In a container of its own root lacks capabilities that would be asked for.
        command.insert(command.index("exec") + 1, "--no-privs")
        return command
    return [*_AS_NOBODY, *command]


def environment(**more: str) -> dict[str, str]:
    """Of a container program: its own caches are in a folder of the user."""
    return {**os.environ, "HOME": str(WORK / "home"), **more}


def listed(found: Any) -> list[dict[str, Any]]:
    """The ways that were tried; none where that failed."""
    return found if isinstance(found, list) else []


def without_terminals() -> str:
    """Leave out the container's own /dev/pts, which not every root may mount."""
    path = Path("/etc/apptainer/apptainer.conf")
    path.write_text(path.read_text().replace("mount devpts = yes", "mount devpts = no"))
    return "mount devpts = no"


def ways(settings: dict[str, Any], places: dict[str, str]) -> list[dict[str, Any]]:
    """Which ways start the server's program in the image, and the GPUs that it finds there."""
    found = []
    for way, (name, _, _) in enumerate(_WAYS):
        command = [*container(settings, places, way), settings["image"][0], "--list-devices"]
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, env=environment(), cwd=WORK
            )
            works, text = done.returncode == 0, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            works, text = False, "no answer within 60 s"
        seconds = round(time.monotonic() - began, 2)
        found.append({"way": name, "works": works, "seconds": seconds, "said": text[-400:]})
        print(json.dumps(found[-1]), flush=True)
    return found


def measure(
    report: Report, settings: dict[str, Any], places: dict[str, str], given: argparse.Namespace
) -> None:
    """Start the release natively and in the image, in turns."""
    works = [one["works"] for one in listed(report.found["ways"])]
    commands = [("native", filled(settings["native"], places))]
    if True in works:
        way = works.index(True)
        server = filled(settings["image"], places)
        commands.append((_WAYS[way][0], [*container(settings, places, way), *server]))
    variables = {n: filled([v], places)[0] for n, v in settings["variables"].items()}
    for turn in range(given.turns):
        for name, command in commands:
            if time.monotonic() > report.deadline:
                print("out of time", flush=True)
                return
            row = {"turn": turn, "started": name, "predicted_mib": settings["predicted_mib"]}
            try:
                row |= one(command, variables, given)
            except _FAULTS as error:
                row["error"] = said(error)
            report.row(row)


def one(command: list[str], variables: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """One start: seconds to be ready, VRAM held, and tokens/s of three prompts."""
    log, before = WORK / "server.log", used_mib(given.gpu)
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=WORK, env=environment(**variables)
        )
        try:
            wait(process, log)
            found: dict[str, Any] = {"ready_seconds": round(time.monotonic() - began, 1)}
            found["speeds"] = [ask(given.prompt_tokens) for _ in range(3)]
            found["held_mib"] = held_mib(process.pid)
            after = used_mib(given.gpu)
            found["device_mib"] = None if before is None or after is None else after - before
            found["processes"] = sorted({name for _, name in tree(process.pid)})
        finally:
            began, members = time.monotonic(), [*tree(process.pid)]
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            for pid, _ in members[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
    found["stop_seconds"] = round(time.monotonic() - began, 1)
    return found


def tree(pid: int) -> Iterator[tuple[int, str]]:
    """A process and all that descend from it, with their names."""
    parents: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, rest = (folder / "stat").read_text().rpartition(")")
            names[int(folder.name)] = head.partition("(")[2]
            parents.setdefault(int(rest.split()[1]), []).append(int(folder.name))
    waiting = [pid]
    while waiting:
        one_pid = waiting.pop()
        if one_pid in names:
            yield one_pid, names[one_pid]
        waiting += parents.get(one_pid, [])


def held_mib(pid: int) -> int | None:
    """MiB that a process and its descendants hold on all GPUs; None without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return None
    pids = {one_pid for one_pid, _ in tree(pid)}
    rows = [row.split(",") for row in smi("--query-compute-apps=pid,used_memory")]
    return sum(int(mib) for owner, mib in rows if int(owner) in pids)


def used_mib(gpu: str) -> int | None:
    """MiB of a GPU in use, whoever uses them; None without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return None
    return int(smi("--query-gpu=memory.used")[int(gpu)])


def table(found: dict[str, Any]) -> list[str]:
    """Rows of Markdown: medians of all that was measured, and the range of speeds."""
    head = "| started | VRAM held, MiB | prompt, tokens/s | answer, tokens/s | ready, s | stop, s |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: |"]
    rows = [row for row in found["rows"] if "error" not in row]
    for name in dict.fromkeys(row["started"] for row in rows):
        mine = [row for row in rows if row["started"] == name]
        held = sorted({str(row["held_mib"] or "none") for row in mine})
        prompts, answers = zip(*(pair for row in mine for pair in row["speeds"]), strict=True)
        times = [statistics.median(row[f"{key}_seconds"] for row in mine) for key in _TIMES]
        cells = (
            name,
            " or ".join(held),
            spread(prompts),
            spread(answers),
            *map("{:.1f}".format, times),
        )
        lines.append(f"| {' | '.join(cells)} |")
    failed = [
        f"{row['started']}, turn {row['turn']}: {row['error']}"
        for row in found["rows"]
        if "error" in row
    ]
    return [*lines, *failed]


_TIMES = ("ready", "stop")


def spread(values: tuple[float, ...]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
