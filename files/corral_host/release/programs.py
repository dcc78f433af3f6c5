"""What the programs of a release say of themselves: version, flags, GPUs."""

import contextlib
import re
import subprocess
from pathlib import Path

from corral_host.system.commands import PROGRAMS, HostError
from corral_host.system.unprivileged import as_owner_of, home_of_nobody

LIMIT_SECONDS = 60
MAINLINE = "llama.cpp"
# Mainline: ``version: X (build N, commit C)``; ik_llama.cpp: ``version: N (C)``.
VERSION = re.compile(r"^version: .*\((?:.*commit )?([0-9a-f]{7,40})\)$", re.MULTILINE)
# A line of --help that begins with flags; descriptions start further right.
FLAG_LINE = re.compile(r"^ {0,12}(?=--?[A-Za-z])")
FLAG = re.compile(r"(--?[A-Za-z][\w.-]*)[,\s]*")
# Mainline lists what it lost, with this.
REMOVED = "has been removed"
# A word of the program's own that may be a flag.
WORD = re.compile(rb"(?<=\0)--?[A-Za-z][A-Za-z0-9_-]*(?=\0)")
NO_SUCH_FLAG = "--corral-no-such-flag"
# Mainline: ``  CUDA0: NVIDIA H200 (143167 MiB, 142651 MiB free)``, of --list-devices.
MAINLINE_DEVICE = re.compile(r"^\s+(CUDA\d+: .*)$", re.MULTILINE)
# Both log it when the back end loads; ik_llama.cpp has no --list-devices.
LOGGED_DEVICE = re.compile(r"^\s+Device (\d+): (.*)$", re.MULTILINE)
DRIVER = "libcuda.so.1"


def server(folder):
    return folder / "bin" / "llama-server"


@contextlib.contextmanager
def bare_environment(toolkit=()):
    """As bare as a unit's, with a home whose owner runs the programs and owns nothing else.

    + toolkit: where a builder without a driver has the toolkit's stand-in for it
    """
    with home_of_nobody() as home:
        environment = {"PATH": PROGRAMS, "HOME": home, "LC_ALL": "C", "GGML_NO_BACKTRACE": "1"}
        stand_in = next((f / "stubs" / "libcuda.so" for f in toolkit), None)
        if stand_in and stand_in.exists() and not driver_is_here():
            (Path(home) / DRIVER).symlink_to(stand_in)
            environment["LD_LIBRARY_PATH"] = home
        yield environment


def driver_is_here():
    done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True)
    return f"{DRIVER} " in done.stdout


def ask(program, words, environment):
    """Everything that a program says, and its exit code; None when it does not end in time."""
    try:
        done = subprocess.run(
            [str(program), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment, cwd=environment["HOME"],
            timeout=LIMIT_SECONDS, text=True, errors="replace", **as_owner_of(environment["HOME"]),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), None
    return done.stdout, done.returncode


def prove_version(program, commit, environment):
    said, code = ask(program, ["--version"], environment)
    found = VERSION.search(said)
    if code != 0 or not found or not commit.startswith(found.group(1)):
        raise HostError(
            f"{program} --version does not name commit {commit[:12]}: {' '.join(said.split())}",
            "see that the source is that of the commit, run the deploy again",
        )


def flags(release, folder, environment):
    """Every flag that the server of ``folder`` takes, sorted.

    Those of --help, which is whole in mainline. That of ik_llama.cpp leaves out --alias, and on
    the CPU all of GPUs, so it is asked for each word of its own whether it is a flag.
    """
    program, hidden = server(folder), {**environment, "CUDA_VISIBLE_DEVICES": ""}
    said, _ = ask(program, ["--help"], hidden)
    listed, removed = flags_of_help(said)
    if not listed:
        raise HostError(f"{program} --help lists no flags: {' '.join(said.split())[:300]}")
    if release["kind"] == MAINLINE:
        return sorted(listed)
    words = {word.decode() for word in WORD.findall(program.read_bytes())}
    unlisted = words - listed - removed
    return sorted(listed | {word for word in unlisted if takes(program, word, hidden)})


def flags_of_help(text):
    """Flags that --help lists, and those that it lists as removed."""
    listed, removed = set(), set()
    for line in text.splitlines():
        start = FLAG_LINE.match(line)
        position = start.end() if start else len(line)
        while found := FLAG.match(line, position):
            (removed if REMOVED in line else listed).add(found.group(1))
            position = found.end()
    return listed, removed


def takes(program, flag, environment):
    """Whether a server's own refusal is not of this flag, but of what follows it."""
    said, _ = ask(program, [flag, "x", NO_SUCH_FLAG], environment)
    return not re.search(rf"^error: (unknown|invalid) argument: {flag}$", said, re.MULTILINE)


def listed_devices(program, environment):
    """GPUs that mainline's back end finds, such as ``CUDA0: NVIDIA H200 (143167 MiB, ...)``."""
    said, _ = ask(program, ["--list-devices"], environment)
    return MAINLINE_DEVICE.findall(said)


def logged_devices(log):
    return [f"CUDA{number}: {name}" for number, name in LOGGED_DEVICE.findall(log)]
