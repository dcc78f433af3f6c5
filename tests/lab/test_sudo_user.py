"""A login that is not root: all goes by sudo as for root, or stops before anything."""

from __future__ import annotations

import ast
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.clones import INVENTORY, clone, stored
from tests.lab.extra_host import extra_host
from tests.lab.untouched import assert_refused, look, said
from tests.lab.workspace import Done, Workspace

HOST, NAME = "lab-4", "tiny-long"
LONG = f"{HOST}/{NAME}"
ALL = ("-i", INVENTORY)
# Who may become root without a password, with one, and nobody: what a spy on the host can do.
OPS, ASKS, SPY = "ops", "asks", "spy"
_USERS = f"""
set -e
for user in {OPS} {ASKS} {SPY}; do
  useradd --create-home --shell /bin/bash "$user"
  install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
  install -m 600 -o "$user" -g "$user" /root/.ssh/authorized_keys "/home/$user/.ssh"
done
echo '{ASKS}:a-password' | chpasswd
umask 0337
echo '{OPS} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{OPS}
echo '{ASKS} ALL=(ALL) ALL' > /etc/sudoers.d/{ASKS}
"""
# What everybody may read: files, and the words and variables of processes.
_SPY = """
import os, pathlib, sys
words = sys.stdin.readline().encode().split()
seen = set()
print("looks", flush=True)
def read(path):
    try:
        return open(path, "rb").read(1 << 20)
    except OSError:
        return b""
while not os.path.exists("/home/spy/over"):
    files = [os.path.join(top, name) for root in ("/tmp", "/var/tmp", "/dev/shm", "/run/user")
             for top, _, names in os.walk(root) for name in names]
    for one in filter(str.isdigit, os.listdir("/proc")):
        files += [f"/proc/{one}/cmdline", f"/proc/{one}/environ"]
    for path in files:
        text = read(path)
        if any(word in text for word in words):
            seen.add(f"{path}: {text[:200]!r}")
for line in sorted(seen):
    print(line)
"""
_LEFT = "find /tmp /var/tmp /dev/shm /home/ops -mindepth 1 -not -path '*systemd-private*' | sort"


@pytest.fixture(scope="module")
def root(deployed_once: Workspace) -> Iterator[Workspace]:
    """The lab with one more host, bare, which has users."""
    with extra_host(deployed_once, 4):
        deployed_once.on(HOST, _USERS)
        yield deployed_once


@pytest.fixture(scope="module")
def ops(root: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone that reaches the host as its sudo user, with a store of its own."""
    folder = tmp_path_factory.mktemp("ops")
    data = {"ssh_user": OPS, "_sudo": True, "keys_folder": str(folder / "store")}
    return reaching(root, folder, **data)


def reaching(lab: Workspace, folder: Path, **data: Any) -> Workspace:
    """A clone whose inventory has this host alone, reached by other data."""
    other = clone(lab, folder, **data)
    path = other.path / INVENTORY
    hosts = ast.literal_eval(path.read_text().removeprefix("servers = "))
    path.write_text(f"servers = {[one for one in hosts if one[0] == HOST]!r}\n")
    return other


def store_of(ops: Workspace) -> Path:
    hosts = ast.literal_eval((ops.path / INVENTORY).read_text().removeprefix("servers = "))
    return Path(hosts[0][1]["keys_folder"])


def new_key(store: Path) -> str:
    """As the only one of the instance."""
    key = f"canary-{secrets.token_hex(16)}"
    path = store / HOST / NAME
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(f"{key}\n")
    path.chmod(0o600)
    return key


@contextmanager
def spied(root: Workspace, *words: str) -> Iterator[list[str]]:
    """Words that another user of the host sees, reported at the end."""
    config = str(root.layout.ssh_config)
    command = ["ssh", "-F", config, "-o", f"User={SPY}", HOST, "python3 spy.py"]
    root.on(HOST, f"rm -f /home/spy/over; cat > /home/spy/spy.py <<'END'\n{_SPY}\nEND")
    found: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as spying:
        assert spying.stdin
        assert spying.stdout
        spying.stdin.write(" ".join(words) + "\n")
        spying.stdin.flush()
        assert spying.stdout.readline() == "looks\n"
        try:
            yield found
        finally:
            root.on(HOST, "touch /home/spy/over")
            found += spying.communicate()[0].splitlines()
    assert spying.returncode == 0


def in_journal(root: Workspace, word: str) -> str:
    """How many lines of the journal hold it; sudo writes each command there."""
    count = "journalctl --no-pager --output=export | grep --text --fixed-strings -c -f -"
    return root.try_on(HOST, f"{count} <<'END'\n{word}\nEND").stdout.strip()


def test_a_spy_sees_what_everybody_may_read(root: Workspace) -> None:
    word = f"canary-{secrets.token_hex(8)}"
    with spied(root, word) as seen:
        root.on(HOST, f"echo {word} > /tmp/careless; sh -c 'sleep 2' {word}; rm /tmp/careless")
    assert {line.split(": ")[0].rpartition("/")[2] for line in seen} >= {"careless", "cmdline"}


def test_a_bare_host_is_deployed_as_by_root_and_nobody_sees_its_keys(
    root: Workspace, ops: Workspace
) -> None:
    key = new_key(store_of(ops))
    planned = ops.corral("plan", HOST, *ALL)
    assert planned.returncode == 0, said(planned)
    before = root.on(HOST, _LEFT)
    with spied(root, key) as seen:
        deployed = ops.deploy("--limit", HOST)
        assert deployed.returncode == 0, said(deployed)
        done = [
            ops.corral("verify", HOST, *ALL),
            ops.corral("status", HOST, *ALL),
            ops.corral("logs", LONG, "-n", "5", *ALL),
            ops.corral("restart", LONG, *ALL),
            ops.corral("history", HOST, *ALL),
        ]
    for one in done:
        assert one.returncode == 0, said(one)
    assert f"{LONG}: ready" in said(done[3])
    assert len(done[2].stdout.splitlines()) == 5
    assert seen == []
    assert root.on(HOST, _LEFT) == before
    assert in_journal(root, key) == "0"
    assert (
        root.on(HOST, f"cat /etc/corral/keys/{NAME}; stat -c '%U %a' /etc/corral/keys/{NAME}")
        == f"{key}\nroot 600"
    )
    again = ops.deploy("--limit", HOST)
    assert again.returncode == 0, said(again)


def test_a_rollout_changes_keys_and_a_generation(
    root: Workspace, ops: Workspace, tmp_path: Path
) -> None:
    key, before = new_key(store_of(ops)), root.on(HOST, _LEFT)
    pid = root.pid(HOST, NAME)
    words = ("rollout", INVENTORY, "-y", "--state", str(tmp_path / "state"))
    with (
        spied(root, key) as seen,
        ops.edited("catalog/profiles/tiny-long.toml", "= 8192", "= 4096"),
    ):
        rolled = ops.corral(*words)
        assert rolled.returncode == 0, said(rolled)
        verified = ops.corral("verify", *ALL)
        assert verified.returncode == 0, said(verified)
    assert root.pid(HOST, NAME) not in (0, pid)
    reverted = ops.corral("revert", LONG, *ALL)
    assert reverted.returncode == 0, said(reverted)
    assert ops.corral("verify", *ALL).returncode == 0
    assert seen == []
    assert root.on(HOST, _LEFT) == before
    assert in_journal(root, key) == "0"


def test_keys_are_taken_over(root: Workspace, ops: Workspace, tmp_path: Path) -> None:
    store = tmp_path / "store"
    data = {"ssh_user": OPS, "_sudo": True, "keys_folder": str(store)}
    other = reaching(root, tmp_path, **data)
    wanted = stored(store_of(ops))
    assert_refused(other.deploy(), "corral keys adopt")
    with spied(root, *wanted[LONG]) as seen:
        adopted = other.corral("keys", "adopt", LONG, *ALL)
        rest = other.corral("keys", "adopt", *ALL)
    for one in (adopted, rest):
        assert one.returncode == 0, said(one)
    assert seen == []
    assert stored(store) == wanted
    verified = other.corral("verify", *ALL)
    assert verified.returncode == 0, said(verified)


def on_a_terminal(lab: Workspace, *words: str) -> Done:
    """Whoever presses Enter there, and gives no password."""
    line = " ".join([lab._program(words[0]), *words[1:]])
    command = ["script", "--quiet", "--return", "--command", line, "/dev/null"]
    done = subprocess.run(
        command, cwd=lab.path, env=lab._environment() | {"TERM": "dumb"}, text=True, check=False,
        input="\n\n\n", capture_output=True, timeout=120,
    )  # fmt: skip
    return Done.of(done)


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a password": (
        {"ssh_user": ASKS, "_sudo": True},
        (HOST, "asks cannot become root by sudo without a password", "NOPASSWD: ALL"),
    ),
    "forgotten": (
        {"ssh_user": OPS}, (HOST, "ops is not root there", 'add "_sudo": True to the data'),
    ),
    "no sudo at all": (
        {"ssh_user": SPY, "_sudo": True}, (HOST, "spy cannot become root by sudo", "NOPASSWD"),
    ),
    "misspelt": (
        {"ssh_user": OPS, "sudo": True}, (HOST, 'unknown key "sudo" (did you mean "_sudo"?)'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_who_does_not_become_root_is_told_before_anything(
    mistake: str, root: Workspace, ops: Workspace, tmp_path: Path
) -> None:
    data, words = MISTAKES[mistake]
    other = reaching(root, tmp_path, **data, keys_folder=str(store_of(ops)))
    before = look(root, HOST)
    rollout = ("rollout", INVENTORY, "-y", "--state", str(tmp_path / "state"))
    for done in (
        other.deploy(),
        other.deploy("--limit", HOST),
        on_a_terminal(other, "pyinfra", INVENTORY, "deploy.py"),
        on_a_terminal(other, "pyinfra", INVENTORY, "deploy.py", "-y"),
        other.corral(*rollout),
        on_a_terminal(other, "corral", *rollout),
        other.corral("status", *ALL),
        other.corral("verify", *ALL),
        other.corral("logs", LONG, *ALL),
        other.corral("restart", LONG, *ALL),
        other.corral("revert", LONG, *ALL),
        on_a_terminal(other, "corral", "restart", LONG, *ALL),
        other.corral("keys", "adopt", LONG, "--replace", *ALL),
    ):
        assert_refused(done, *words)
        assert len(said(done)) < 3000, said(done)
        # A table has the mistake in each row; what to type is shown once, or by pyinfra again.
        assert said(done).count(words[-1]) <= 2, said(done)
    assert look(root, HOST) == before
