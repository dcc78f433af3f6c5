"""A reboot is announced, waited for, and given up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from corral.errors import CorralError
from operations import reboot


class Rebooting:
    """A host in the seconds around its reboot: what it answers, one connection after another."""

    name, print_prefix = "one", "[one] "
    current_op_global_arguments: dict[str, Any] = {}

    def __init__(self, *boots: str | None) -> None:
        self.boots = list(boots)
        self.connected = True
        self.commands: list[str] = []

    def run_shell_command(self, command: Any, **_: Any) -> tuple[bool, Any]:
        self.commands.append(command.get_raw_value())
        if self.boots[0] is None:
            raise OSError("connection reset")

        class Output:
            stdout = self.boots[0]

        return True, Output

    def disconnect(self) -> None:
        self.connected = False

    def connect(self, *, show_errors: bool) -> None:
        assert not show_errors
        self.boots.pop(0)
        self.connected = self.boots[0] is not None


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboot, "_PAUSE_SECONDS", 0)


def rebooted(host: Rebooting, drained: reboot.Drained = nullcontext) -> bool:
    (command,) = reboot.reboot("because", drained=drained)
    assert isinstance(command, FunctionCommand)
    ok: bool = command.function(None, host, *command.args)
    return ok


@pytest.mark.usefixtures("_no_waiting")
def test_a_reboot_has_happened_once_another_boot_answers() -> None:
    host = Rebooting("Mon 10:00", "Mon 10:00", None, None, "Mon 10:05")
    assert rebooted(host)
    assert "systemctl reboot" in host.commands[1]
    assert host.boots == ["Mon 10:05"]


@pytest.mark.usefixtures("_no_waiting")
def test_a_host_that_does_not_come_back_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboot, "LIMIT_SECONDS", 0)
    assert not rebooted(Rebooting("Mon 10:00", None))


@pytest.mark.usefixtures("_no_waiting")
def test_a_host_that_cannot_be_told_to_reboot_fails() -> None:
    assert not rebooted(Rebooting(None))


@pytest.mark.usefixtures("_no_waiting")
def test_the_host_reboots_while_its_servers_are_drained() -> None:
    host = Rebooting("Mon 10:00", "Mon 10:00", None, "Mon 10:05")
    boots: list[Any] = []

    @contextmanager
    def drained() -> Iterator[None]:
        boots.append(host.boots[0])
        yield
        boots.append(host.boots[0])

    assert rebooted(host, drained)
    assert boots == ["Mon 10:00", "Mon 10:05"]


def test_a_host_whose_servers_cannot_be_drained_does_not_reboot() -> None:
    host = Rebooting("Mon 10:00")

    @contextmanager
    def refused() -> Iterator[None]:
        raise CorralError("one/chat", "is the last server", "make another one ready")
        yield

    assert not rebooted(host, refused)
    assert host.commands == []
