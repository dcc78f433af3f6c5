"""The systemd unit: systemd's own verdict on it, and the words that reach the server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from corral.paths import HostPaths
from corral.plan.instance import InstancePlan
from corral.planning.unit import escape
from tests.samples import CHAT, GPU, SOCKET, host, planner

LAN = {**CHAT, "address": "0.0.0.0"}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "tcp": (CHAT, {}, 13),
    "open to the network": (LAN, {}, 13),
    "unix socket": (SOCKET, {}, 6),
    "gpu": (CHAT, {"gpus": GPU}, 13),
    "gpu and open": (LAN, {"gpus": GPU}, 13),
    "one gpu of two": ({**CHAT, "gpus": [1]}, {"gpus": GPU}, 13),
    "gpu by uuid": ({**CHAT, "gpus": ["GPU-1f2e"]}, {"gpus": GPU}, 13),
}
NASTY = [
    "plain",
    "--flag=value",
    "/a/path.gguf",
    "",
    " ",
    "two words",
    " edges ",
    "100%",
    "%h",
    "%%d",
    "$HOME",
    "${HOME}",
    "$$",
    'say "yes"',
    "it's",
    "back\\slash",
    "C:\\new\\table",
    "trailing\\",
    ";",
    "a;b",
    "new\nline",
    "tab\there",
    "#no comment",
    "{a,b}",
    "*?[x]",
    "`id`",
    "|&<>()!~",
    "\u00fc\N{SNOWMAN}",
    "-",
    "@start",
    "\\x41",
    "\a",
]


def analyze(*words: str, debug: bool = False) -> subprocess.CompletedProcess[str]:
    level = {"SYSTEMD_LOG_LEVEL": "debug"} if debug else {}
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, env={**os.environ, **level},
        check=False,
    )  # fmt: skip


def written(folder: Path, instance: InstancePlan) -> Path:
    """The unit as a file, with a program where its command line says."""
    program = Path(instance.argv[0])
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    path = folder / instance.unit
    path.write_text(instance.unit_text)
    return path


@pytest.mark.parametrize(
    ("mode", "locks"),
    [("mmap", False), ("none", False), ("mlock", True), ("mmap+mlock", True)],
)
def test_locked_memory_is_allowed_where_it_is_asked_for(
    mode: str, locks: bool, tmp_path: Path
) -> None:
    paths = HostPaths(engines=str(tmp_path / "engines"))
    instance = planner(paths=paths, load_mode=mode).plan_host(host(CHAT)).instances[0]
    assert ("LimitMEMLOCK=infinity" in instance.unit_text.splitlines()) is locks
    verified = analyze("verify", str(written(tmp_path, instance)))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_calls_that_lock_memory_pass_the_filter() -> None:
    allowed = analyze("syscall-filter", "@system-service").stdout
    assert "@memlock" in allowed


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_nothing_to_say_and_little_exposed(kind: str, tmp_path: Path) -> None:
    spec, data, threshold = KINDS[kind]
    paths = HostPaths(engines=str(tmp_path / "engines"))
    instance = planner(paths=paths).plan_host(host(spec, **data)).instances[0]
    path = written(tmp_path, instance)
    verified = analyze("verify", str(path))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    secured = analyze("security", "--offline=true", f"--threshold={threshold}", str(path))
    assert secured.returncode == 0, secured.stdout


def test_systemd_speaks_up_about_a_broken_unit(tmp_path: Path) -> None:
    path = tmp_path / "broken.service"
    path.write_text("[Service]\nExecStart=/bin/true\nPrivateTpm=yes\n")
    assert "PrivateTpm" in analyze("verify", str(path)).stderr
    secured = analyze("security", "--offline=true", "--threshold=13", str(path))
    assert secured.returncode == 1


def as_systemd_reads(text: str, folder: Path) -> list[list[str]]:
    """What systemd's parser makes of each ExecStart= of a unit; ``$$`` is still double."""
    path = folder / "words.service"
    path.write_text(text)
    dump = analyze("verify", str(path), debug=True).stdout
    lines = re.findall(r"^\t+Command Line: (.*)$", dump, re.MULTILINE)
    words = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
    return [[unquote(word) for word in words.findall(line)] for line in lines]


def unquote(token: str) -> str:
    if not token.startswith('"'):
        return token
    letters = {"n": "\n", "t": "\t", "a": "\a"}
    return re.sub(r"\\(.)", lambda found: letters.get(found[1], found[1]), token[1:-1])


def test_the_command_line_of_a_plan_is_what_systemd_runs(tmp_path: Path) -> None:
    alias = " ".join(NASTY)
    instance = planner(alias=alias).plan_host(host(CHAT)).instances[0]
    assert alias in instance.argv
    wanted = [word.replace("$", "$$") for word in instance.argv]
    assert as_systemd_reads(instance.unit_text, tmp_path) == [wanted]


def test_one_nasty_word_stays_one_word(tmp_path: Path) -> None:
    # systemd reduces $$ only when it starts the command.
    lines = [f"ExecStart=/bin/echo {escape(word)} end" for word in NASTY]
    text = "\n".join(["[Service]", "Type=oneshot", *lines, ""])
    wanted = [["/bin/echo", word.replace("$", "$$"), "end"] for word in NASTY]
    assert as_systemd_reads(text, tmp_path) == wanted


@pytest.mark.parametrize("word", ["plain", "--flag", "/a/path.gguf", "q8_0", "10.0.0.1"])
def test_a_word_without_special_characters_stays_bare(word: str) -> None:
    assert escape(word) == word


def test_the_unit_names_its_generation_keys_and_port() -> None:
    instance = planner().plan_host(host(CHAT)).instances[0]
    for line in (
        f"X-Corral-Generation={instance.generation}",
        f"LoadCredential=api-keys:{instance.key_path}",
        "SocketBindAllow=tcp:8001",
    ):
        assert line in instance.unit_text.splitlines()


def waiting(tries: int, node: Path) -> subprocess.CompletedProcess[str]:
    """Run the command before the server of a unit with GPUs, with another node and fewer tries."""
    text = planner().plan_host(host(CHAT, gpus=GPU)).instances[0].unit_text
    (command,) = re.findall(r"^ExecStartPre=/bin/sh -c '(.*)'$", text, re.MULTILINE)
    script = command.replace("$$", "$").replace("/dev/nvidia-uvm", str(node))
    script = script.replace("seq 240", f"seq {tries}")
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)


def test_a_server_with_gpus_waits_for_their_node_and_says_so(tmp_path: Path) -> None:
    node = tmp_path / "uvm"
    absent = waiting(1, node)
    assert absent.returncode == 1
    assert absent.stdout.splitlines()[0] == f"waits for {node}"
    assert "Next: on the host run modprobe nvidia-uvm" in absent.stdout
    node.touch()
    assert (waiting(1, node).returncode, waiting(1, node).stdout) == (0, "")


def test_a_late_node_of_a_gpu_gives_no_instance_up() -> None:
    """Tries that wait for it never reach StartLimitBurst= within its interval."""
    text = planner().plan_host(host(CHAT, gpus=GPU)).instances[0].unit_text
    value = dict(re.findall(r"^(\w+)=(\d+)$", text, re.MULTILINE))
    seconds = int(*re.findall(r"seq (\d+)", text))
    assert seconds < int(value["TimeoutStartSec"])
    assert int(value["StartLimitBurst"]) * seconds > int(value["StartLimitIntervalSec"])
    assert "Assert" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


def numa_unit(**profile: Any) -> str:
    return planner(**profile).plan_host(host(CHAT)).instances[0].unit_text


def test_threads_of_numa_nodes_may_be_placed() -> None:
    text = numa_unit(numa="distribute")
    assert "--numa distribute" in text
    assert text.index("~@privileged @resources") < text.index("SystemCallFilter=sched_setaffinity")
    assert "sched_setaffinity" not in numa_unit()
    assert "NUMA" not in text


@pytest.mark.parametrize(
    ("profile", "lines"),
    [
        ({"numa_memory": "interleave"}, ["NUMAPolicy=interleave", "NUMAMask=all"]),
        ({"numa_memory": "bind", "numa_nodes": "0-1", "numa": "numactl"},
         ["NUMAPolicy=bind", "NUMAMask=0-1", "CPUAffinity=numa"]),
        ({"numa_memory": "preferred", "numa_nodes": "1"}, ["NUMAPolicy=preferred", "NUMAMask=1"]),
        ({"numa_memory": "local"}, ["NUMAPolicy=local"]),
    ],
)  # fmt: skip
def test_memory_of_numa_nodes_is_the_units(
    tmp_path: Path, profile: dict[str, Any], lines: list[str]
) -> None:
    text = numa_unit(**profile)
    found = [line for line in text.splitlines() if line.startswith(("NUMA", "CPUAffinity"))]
    assert found == lines
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "corral-chat.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
