"""Reaching hosts: pyinfra's host data as ssh options; what counts as verified."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from corral.errors import CorralError
from corral.host.answers import ANYTHING
from corral.host.checks import Check, failures
from corral.remote import transport
from corral.remote.bounded import Ended
from corral.remote.client import travelling_helper
from corral.remote.ssh import ssh_command
from tests.samples import CHAT, EXAMPLES, LONG, host, plan

SSH: dict[str, Any] = {
    "ssh_hostname": "10.0.0.7",
    "ssh_user": "ops",
    "ssh_port": 2222,
    "ssh_key": "/keys/id",
    "ssh_known_hosts_file": "/keys/known_hosts",
    "ssh_strict_host_key_checking": "yes",
}


def test_ssh_goes_where_the_inventory_says_and_as_strictly() -> None:
    command = ssh_command(host(CHAT, **SSH), ["true"])
    options = {word for flag, word in zip(command, command[1:], strict=False) if flag == "-o"}
    assert {
        "User=ops", "Port=2222", "IdentityFile=/keys/id", "IdentitiesOnly=yes",
        "UserKnownHostsFile=/keys/known_hosts", "StrictHostKeyChecking=yes", "BatchMode=yes",
    } <= options  # fmt: skip
    assert command[-3:] == ["--", "10.0.0.7", "true"]


def test_without_ssh_data_the_name_is_the_address() -> None:
    assert ssh_command(host(CHAT), ["true"])[-2:] == ["lab-1", "true"]


def test_remote_words_stay_words_and_sudo_is_used_where_asked() -> None:
    words = ["echo", "two words", "$HOME", "it's"]
    remote = ssh_command(host(CHAT, _sudo=True), words)[-1]
    assert shlex.split(remote) == ["sudo", "-n", "--", *words]


def answering(monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str = "") -> None:
    ended = Ended(code, out.encode(), err.encode())
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(transport, "run_within", lambda *_, **__: ended)


def test_the_machine_itself_needs_no_ssh() -> None:
    assert ssh_command(host(CHAT, name="@local"), ["true", "a b"]) == ["true", "a b"]
    as_root = ssh_command(host(CHAT, name="@local", _sudo=True), ["true"])
    assert as_root == ["sudo", "-n", "--", "true"]


def test_the_helper_answers_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 0, '{"ready": ["chat"]}\n')
    assert travelling_helper(host(CHAT)).ask(["ready"], ANYTHING, "{}") == {"ready": ["chat"]}


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [
        (255, "", "ssh: connect to host lab-1: refused", "refused"),
        (127, "", "", "127"),
        (0, "Welcome to lab-1!\n", "", "lab-1"),
    ],
)
def test_a_host_that_gives_no_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, said: str
) -> None:
    answering(monkeypatch, code, out, err)
    with pytest.raises(CorralError, match=said) as caught:
        travelling_helper(host(CHAT)).ask(["check"], ANYTHING, "{}")
    assert caught.value.where == "lab-1"


def check(instance: str, *, ok: bool) -> Check:
    return Check(instance=instance, check="health", ok=ok, detail="503")


def test_only_checks_that_all_passed_count_as_verified() -> None:
    planned = plan(CHAT, LONG)
    good = [check("chat", ok=True), check("long", ok=True)]
    assert failures(planned, good) == []
    assert failures(planned, [good[0], check("long", ok=False)]) == ["long: health: 503"]


def test_an_instance_that_nobody_checked_is_a_failure() -> None:
    assert failures(plan(CHAT, LONG), [check("chat", ok=True)]) == ["long: not checked"]
    assert len(failures(plan(CHAT, LONG), [])) == 2
