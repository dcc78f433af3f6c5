"""A key is only in the controller's store, the host's key file and the server's credential."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.workspace import Workspace

LAB = ("-i", "inventories/lab.py")
INSTANCE = ("lab-1", "tiny-long")
HOLDERS = [
    "/etc/corral/keys/tiny-long",
    "/run/credentials/corral-tiny-long.service/api-keys",
]
# The text to search comes from the host's own key file, so that no command line has it.
WANTED = "umask 077; grep -v '^#' /etc/corral/keys/tiny-long > /root/.wanted"
FILES = (
    "grep --recursive --files-with-matches --devices=skip --fixed-strings --file=/root/.wanted "
    "--exclude=.wanted --exclude-dir=models "
    "/etc /home /opt /root /run /srv /tmp /usr/local /var | sort"
)
JOURNAL = "journalctl --no-pager --output=export | grep --text --fixed-strings -c -f /root/.wanted"


@contextmanager
def canary(fleet: Workspace) -> Iterator[str]:
    """Add a new key of lab-1/tiny-long to the controller's store until the block ends."""
    path, key = fleet.layout.keys.joinpath(*INSTANCE), f"canary-{secrets.token_hex(16)}"
    before = path.read_text()
    path.write_text(f"{key}\n")
    try:
        yield key
    finally:
        path.write_text(before)


@contextmanager
def watched(word: str) -> Iterator[set[str]]:
    """Command lines and environments with ``word`` in them, of all processes here.

    The hosts' processes are among them: a container's are seen from outside.
    """
    found: set[str] = set()
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        watching = pool.submit(_watch, word.encode(), found, done)
        try:
            yield found
        finally:
            done.set()
            watching.result()


def _watch(word: bytes, found: set[str], done: threading.Event) -> None:
    while not done.wait(0.02):
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                # Some have ended by now, and the first process of a container may not be read.
                with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                    text = (process / name).read_bytes()
                    if word in text:
                        found.add(f"{name}: {text.replace(bytes(1), b' ').decode()}")


def holders(fleet: Workspace) -> tuple[list[str], str]:
    """Files of lab-1 with a key of tiny-long in them, and how many lines of its journal."""
    files = fleet.on("lab-1", f"{WANTED}; {FILES}").splitlines()
    lines = fleet.try_on("lab-1", f"{JOURNAL}; rm /root/.wanted").stdout.strip()
    return files, lines


@pytest.mark.parametrize("flag", ["-vvv", "--debug", "--diff"])
def test_a_deploy_shows_a_new_key_to_nobody(fleet: Workspace, flag: str) -> None:
    before = fleet.pid(*INSTANCE)
    with canary(fleet) as key:
        with watched(key) as seen:
            deployed = fleet.deploy(flag, "--limit", "lab-1")
            said = [
                fleet.corral("plan", "lab-1", *LAB),
                fleet.corral("verify", "lab-1", "--json", *LAB),
                fleet.corral("status", "lab-1", "--json", *LAB),
            ]
        assert key in fleet.on("lab-1", f"cat {HOLDERS[0]}")
        assert holders(fleet) == (HOLDERS, "0")
    assert fleet.pid(*INSTANCE) != before
    assert seen == set()
    for done in (deployed, *said):
        assert done.returncode == 0, done.stdout + done.stderr
        assert key not in done.stdout + done.stderr
    written = [path for path in fleet.path.rglob("*") if path.is_file()]
    assert not [path for path in written if key.encode() in path.read_bytes()]


def test_no_key_is_readable_by_other_users(deployed_once: Workspace) -> None:
    open_files = "find {} -type f -perm /007"
    for host in ("lab-1", "lab-2", "lab-3"):
        assert deployed_once.on(host, open_files.format("/etc/corral /run/credentials")) == ""
        assert deployed_once.on(host, open_files.format("/etc/hostname")) == "/etc/hostname"


def test_a_key_in_an_argument_an_environment_a_file_or_the_journal_is_noticed(
    deployed_once: Workspace,
) -> None:
    word = f"canary-{secrets.token_hex(16)}"
    with watched(word) as seen:
        deployed_once.on("lab-1", f"SECRET={word} sh -c 'sleep 2; true' {word}")
    assert {line.split(":")[0] for line in seen} == {"cmdline", "environ"}
    _, lines_before = holders(deployed_once)
    careless = "grep -v '^#' /etc/corral/keys/tiny-long"
    deployed_once.on("lab-1", f"{careless} > /var/lib/corral/careless; {careless} | logger")
    files, lines = holders(deployed_once)
    deployed_once.on("lab-1", "rm /var/lib/corral/careless")
    assert "/var/lib/corral/careless" in files
    assert int(lines) == int(lines_before) + 1


def test_a_key_that_was_staged_and_declined_is_read_by_no_start(fleet: Workspace) -> None:
    file, waits = HOLDERS[0], "/etc/corral/keys/.staged/tiny-long"
    before = fleet.on("lab-1", f"cat {file}")
    with canary(fleet) as key:
        staged = fleet.deploy("--limit", "lab-1", "--data", "stage_only=true")
        assert staged.returncode == 0, staged.stdout + staged.stderr
        fleet.on("lab-1", "systemctl restart corral-tiny-long")
        assert [fleet.on("lab-1", f"cat {path}") for path in HOLDERS] == [before, before]
        assert fleet.on("lab-1", f"cat {waits}; stat --format %a {waits}") == f"{key}\n600"
        assert fleet.corral("verify", "lab-1/tiny-long", *LAB).returncode == 1
    deployed = fleet.deploy("--limit", "lab-1")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert fleet.on("lab-1", f"cat {file}") == before
    assert fleet.on("lab-1", f"ls -A {waits.rpartition('/')[0]}") == ""
    assert fleet.corral("verify", "lab-1/tiny-long", *LAB).returncode == 0
