"""Hosts that are not reached: one plain sentence, and the whole command that a person types."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.remote.lease import Lease
from corral.remote.run import run_on
from corral.remote.ssh import typed_command
from corral.remote.unreached import UnreachedError, unreached
from corral.rollout.locks import HostLocks
from lab.odd_host import Answer, OddHosts
from tests.samples import CHAT, ROOT, host, plan
from tests.unit.cli.test_cli import Corral, corral, edit
from tests.unit.helper_modules import program
from tests.unit.odd_fleet import odd_hosts

pytestmark = pytest.mark.slow

__all__ = ["corral"]

# As OpenSSH 9.2 says it.
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Someone could be eavesdropping on you right now (man-in-the-middle attack)!\r
It is also possible that a host key has just been changed.\r
The fingerprint for the ED25519 key sent by the remote host is\nSHA256:Xx0/fR+6b.\r
Please contact your system administrator.\r
Add correct host key in /k/hosts to get rid of this message.\r
Offending ED25519 key in /k/hosts:3\r
  remove with:\r
  ssh-keygen -f "/k/hosts" -R "[10.0.0.7]:2222"\r
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.\r
Host key verification failed.\r
"""
UNKNOWN = """\
No ED25519 host key is known for [10.0.0.7]:2222 and you have requested strict checking.\r
Host key verification failed.\r
"""
SSH: dict[str, Any] = {
    "ssh_hostname": "10.0.0.7", "ssh_user": "ops", "ssh_port": 2222, "ssh_key": "~/.ssh/fleet key",
    "ssh_known_hosts_file": "/k/hosts", "ssh_strict_host_key_checking": "yes",
    "ssh_config_file": "inventories/ssh_config",
}  # fmt: skip
TYPED = (
    "ssh -F inventories/ssh_config -i '~/.ssh/fleet key' -p 2222 -o IdentitiesOnly=yes "
    "-o UserKnownHostsFile=/k/hosts -o StrictHostKeyChecking=yes ops@10.0.0.7"
)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    return odd_hosts(tmp_path / "odd", monkeypatch)


def test_the_command_is_the_whole_of_it() -> None:
    assert typed_command(host(CHAT, **SSH)) == TYPED
    assert typed_command(host(CHAT)) == "ssh lab-1"
    assert typed_command(host(CHAT, ssh_user="a;b")) == "ssh 'a;b@lab-1'"
    assert typed_command(host(CHAT, name="@local", _sudo=True)) == "sudo -n -- true"


def test_a_changed_host_key_is_one_plain_sentence() -> None:
    error = unreached(host(CHAT, **SSH), CHANGED)
    assert "@@" not in str(error)
    assert "\n" not in error.what
    assert error.what == (
        "not reached (its host key is not the one in line 3 of /k/hosts, but SHA256:Xx0/fR+6b: it "
        "was reinstalled, or another machine answers at its address)"
    )
    assert "`ssh-keygen -f /k/hosts -R '[10.0.0.7]:2222'`" in error.next_step
    assert TYPED in error.next_step


def test_an_unknown_host_key_names_the_file_that_lacks_it() -> None:
    error = unreached(host(CHAT, **SSH), UNKNOWN)
    assert error.reason == "its host key is not in /k/hosts, and unknown keys are refused"
    assert "`ssh-keyscan -p 2222 10.0.0.7 >> /k/hosts`" in error.next_step


@pytest.mark.parametrize(
    ("named", "entry", "scanned"),
    [
        ("10.9.0.7", "10.9.0.7", "10.9.0.7"),
        ("[10.9.0.7]:2201", "'[10.9.0.7]:2201'", "-p 2201 10.9.0.7"),
        ("[fe80::7%e;x]:22", "'[fe80::7%e;x]:22'", "-p 22 'fe80::7%e;x'"),
    ],
)
def test_where_ssh_knows_another_address_of_a_host_that_is_typed(
    named: str, entry: str, scanned: str
) -> None:
    """As an ssh_config_file may say."""
    described = host(CHAT, ssh_config_file="ssh_config")
    error = unreached(described, CHANGED.replace("[10.0.0.7]:2222", named))
    assert f"`ssh-keygen -f /k/hosts -R {entry}`, then `ssh -F ssh_config lab-1`" in error.next_step
    error = unreached(described, UNKNOWN.replace("[10.0.0.7]:2222", named))
    assert f"`ssh-keyscan {scanned} >> ~/.ssh/known_hosts`" in error.next_step
    error = unreached(described, "Host key verification failed.\r\n")
    assert "`ssh-keyscan lab-1 >> ~/.ssh/known_hosts`" in error.next_step


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ssh: connect to host x port 22: Connection refused\r\n", "Connection refused"),
        ("\n\nops@10.0.0.7: Permission denied (publickey).\n", "Permission denied (publickey)."),
        ("", "no reason given"),
        ("no answer within 2 s", "no answer within 2 s"),
    ],
)
def test_other_reasons_are_those_of_ssh_in_one_line(said: str, reason: str) -> None:
    error = unreached(host(CHAT, **SSH), said)
    assert error.reason.endswith(reason)
    assert "\n" not in error.reason
    assert error.next_step == f"check that `{TYPED}` works, then run the same command again"


@pytest.mark.parametrize("words", [("status",), ("verify",), ("history",), ("stop",), ("logs",)])
def test_no_command_shows_the_warning_of_ssh(
    corral: Corral, hosts: OddHosts, words: tuple[str, ...]
) -> None:
    (corral.root / "files").symlink_to(ROOT / "files")
    key = '("node-2", {"ssh_known_hosts_file": "/k/hosts", '
    edit(corral.root / "inventories/site.py", '("node-2", {', key)
    hosts.says("node-2", Answer(err=CHANGED.encode(), code=255))
    said = corral(*words, "node-2")
    shown = said.out + said.err
    assert said.code == 1
    assert "@@" not in shown
    assert "its host key is not the one in line 3 of /k/hosts" in " ".join(shown.split())
    assert "ssh -o UserKnownHostsFile=/k/hosts node-2" in shown
    assert "Traceback" not in shown


def test_what_a_command_says_before_its_link_is_cut_is_printed(
    hosts: OddHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = b"Debian GNU/Linux\ncorral: begun\na line\nConnection closed\n"
    hosts.says("lab-1", Answer(out=b"out\n", err=begun, code=255))
    assert run_on(host(CHAT), ["journalctl"]) == 255
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out\n", "Debian GNU/Linux\na line\nConnection closed\n")


@pytest.fixture
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say which user commands run as."""

    def log_in(number: int) -> None:
        program(tmp_path / "bin", "id", f'if [ "$1" = -u ]; then echo {number}; else echo ops; fi')
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    return log_in


def test_a_command_runs_with_its_words(
    hosts: OddHosts, logged_in: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in(0)
    hosts.says("lab-1", Answer(run_by=("sh", "-c")))
    assert run_on(host(CHAT), ["sh", "-c", 'echo "$1" >&2; exit 7', "sh", "it's $HOME"]) == 7
    assert capsys.readouterr().err == "it's $HOME\n"


def test_a_command_of_who_is_not_root_is_not_begun(
    hosts: OddHosts, logged_in: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in(1000)
    hosts.says("lab-1", Answer(run_by=("sh", "-c")))
    with pytest.raises(CorralError, match="but user ops") as caught:
        run_on(host(CHAT), ["echo", "half a journal"])
    assert '"_sudo": True' in caught.value.next_step
    assert capsys.readouterr().out == ""


def test_a_lock_that_is_not_taken_says_why(hosts: OddHosts) -> None:
    hosts.says("lab-1", Answer(err=CHANGED.encode(), code=255))
    with pytest.raises(UnreachedError, match="reinstalled"):
        HostLocks([(host(CHAT), plan(CHAT))], by="ann", rollout="r").__enter__()


# How a login may become root -> what its program says, and what is to be done.
REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a password": ({"_sudo": True}, "sudo: a password is required\n", "NOPASSWD"),
    "a password, sudo-rs": (
        {"_sudo": True}, "sudo-rs: interactive authentication is required\n", "NOPASSWD",
    ),
    "no sudo": ({"_sudo": True}, "sh: 1: sudo: not found\n", "NOPASSWD"),
    "not among those": (
        {"_sudo": True}, "ops is not in the sudoers file.\n", "NOPASSWD",
    ),
    "doas": ({"_doas": True}, "doas: Authentication required\n", "doas.conf"),
    "su": ({"_su_user": "root"}, "Password: su: Authentication failure\n", "_sudo"),
    "nothing": (
        {}, "the helper is not root, but user 1000: [Errno 13] Permission denied: '/etc/x'\n",
        'add "_sudo": True',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("words", [("stop", "node-2"), ("verify", "node-2", "--json")])
def test_a_login_that_is_not_root_is_told_what_to_do(
    corral: Corral, hosts: OddHosts, words: tuple[str, ...], case: str
) -> None:
    data, said_there, step = REFUSALS[case]
    (corral.root / "files").symlink_to(ROOT / "files")
    more = f'("node-2", {{**{ {"ssh_user": "ops", **data}!r}, '
    edit(corral.root / "inventories/site.py", '("node-2", {', more)
    hosts.says("node-2", Answer(err=said_there.encode(), code=1))
    said = corral(*words)
    assert said.code == 1
    assert "ops " in said.out + said.err
    assert step in (said.out + said.err).replace('\\"', '"')
    assert "Traceback" not in said.out + said.err


def test_root_is_reached_by_all_that_the_data_says() -> None:
    from corral.remote.root import as_root

    assert as_root({}, ["true"]) == ["true"]
    assert as_root({"_doas": True}, ["true"]) == ["doas", "-n", "true"]
    assert as_root({"_sudo": True, "_sudo_user": "x"}, ["true"]) == [
        "sudo", "-n", "-u", "x", "--", "true",
    ]  # fmt: skip
    both = as_root({"_sudo": True, "_su_user": "root"}, ["echo", "-n", "a b"])
    assert both[:4] == ["sudo", "-n", "--", "su"]
    assert both[-4:] == ["--", "echo", "-n", "a b"]


def test_an_error_of_the_host_itself_is_none_of_its_login(hosts: OddHosts) -> None:
    from corral.host.answers import ANYTHING
    from corral.remote.client import installed_helper

    hosts.says("lab-1", Answer(err=b"chat: no such key. Next: deploy it\n", code=1))
    with pytest.raises(CorralError, match="no such key") as caught:
        installed_helper(host(CHAT), "/h.pyz").ask(["poll"], ANYTHING)
    assert caught.value.next_step == "deploy it"


def test_no_message_is_a_document_or_a_traceback(hosts: OddHosts) -> None:
    from corral.host.answers import ANYTHING
    from corral.remote.client import installed_helper

    document = '{"instances": ' + "[1]" * 5000
    told = f"Traceback (most recent call last):\n  File x\nPermissionError: 13 {document}\n"
    hosts.says("lab-1", Answer(err=told.encode(), code=1))
    with pytest.raises(CorralError, match="^lab-1: its helper failed: PermissionError") as caught:
        installed_helper(host(CHAT), "/h.pyz").ask(["poll"], ANYTHING)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "reach", [partial(run_on, command=["true"]), partial(Lease, command=["true"])]
)
def test_a_controller_without_ssh_is_told_so(
    reach: Callable[[Host], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorralError) as raised:
        reach(host(CHAT))
    assert "No such file or directory: 'ssh'" in raised.value.what
    assert raised.value.next_step == "check that `ssh` can be run here"
