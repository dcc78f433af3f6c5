"""What a llama-server reports about itself: version, flags, GPUs."""

import re

from corral_host.system.commands import HostError

# Mainline: ``version: X (build N, commit C)``; ik_llama.cpp: ``version: N (C)``.
VERSION = re.compile(r"^version: .*\((?:.*commit )?([0-9a-f]{7,40})\)$", re.MULTILINE)
# A line of --help that begins with flags; descriptions start further right.
FLAG_LINE = re.compile(r"^ {0,12}(?=--?[A-Za-z])")
FLAG = re.compile(r"(--?[A-Za-z][\w.-]*)[,\s]*")
# Mainline lists removed flags, with this text.
REMOVED = "has been removed"
# A string in the program's file that may be a flag.
POSSIBLE_FLAG = re.compile(rb"(?<=\0)--?[A-Za-z][A-Za-z0-9_-]*(?=\0)")
NO_SUCH_FLAG = "--corral-no-such-flag"
# Mainline: ``  CUDA0: NVIDIA H200 (143167 MiB, 142651 MiB free)``, of --list-devices.
MAINLINE_DEVICE = re.compile(r"^\s+(CUDA\d+: .*)$", re.MULTILINE)
# Both log it when the back end loads; ik_llama.cpp has no --list-devices.
LOGGED_DEVICE = re.compile(r"^\s+Device (\d+): (.*)$", re.MULTILINE)


def prove_version(program, commit, run):
    said, code = run(["--version"])
    found = VERSION.search(said)
    if code != 0 or not found or not commit.startswith(found.group(1)):
        raise HostError(
            f"{program} --version does not name commit {commit[:12]}: {' '.join(said.split())}",
            "check that the source is that of the commit, run the deploy again",
        )


def listed_flags(program, run):
    """Flags that --help lists, and those that it lists as removed."""
    said, _ = run(["--help"])
    listed, removed = flags_of_help(said)
    if not listed:
        raise HostError(f"{program} --help lists no flags: {' '.join(said.split())[:300]}")
    return listed, removed


def flags_of_help(text):
    listed, removed = set(), set()
    for line in text.splitlines():
        start = FLAG_LINE.match(line)
        position = start.end() if start else len(line)
        while found := FLAG.match(line, position):
            (removed if REMOVED in line else listed).add(found.group(1))
            position = found.end()
    return listed, removed


def possible_flags(program):
    """Strings in the program's file that may be flags."""
    return {one.decode() for one in POSSIBLE_FLAG.findall(program.read_bytes())}


def takes(flag, run):
    """Whether a server knows a flag: it then refuses not that, but the unknown one after it."""
    said, _ = run([flag, "x", NO_SUCH_FLAG])
    return not re.search(rf"^error: (unknown|invalid) argument: {flag}$", said, re.MULTILINE)


def listed_devices(run):
    """GPUs that mainline's back end finds, such as ``CUDA0: NVIDIA H200 (143167 MiB, ...)``."""
    said, _ = run(["--list-devices"])
    return MAINLINE_DEVICE.findall(said)


def logged_devices(log):
    return [f"CUDA{number}: {name}" for number, name in LOGGED_DEVICE.findall(log)]
