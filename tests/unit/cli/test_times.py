"""Durations and moments that operators type, and the commands that take them."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli
from corral.cli import gateway as gateway_module
from corral.cli import instances as instances_module
from corral.errors import CorralError
from corral.gateway import control
from tests.unit.cli.test_rollout import target


def corral(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run on hosts."""
    commands: list[list[str]] = []

    def run(_: object, command: list[str]) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(instances_module, "reach_one", lambda *_: target("a"))
    monkeypatch.setattr(instances_module, "run_on", run)
    return commands


@pytest.mark.parametrize(
    ("typed", "argument"),
    [
        ("90", "-90s"),
        ("10m", "-600s"),
        ("10min ago", "-600s"),
        ("2h", "-7200s"),
        ("1d", "-86400s"),
        ("14:30", "14:30"),
        ("today", "today"),
        ("2026-11-30", "2026-11-30 00:00:00"),
        ("2026-11-30T14:30:05", "2026-11-30 14:30:05"),
        ("2026-11-30T14:30:00Z", "@1796049000"),
        ("2026-11-30T15:30:00+01:00", "@1796049000"),
    ],
)
def test_logs_begin_at_a_moment_with_all_lines(
    ran: list[list[str]], typed: str, argument: str
) -> None:
    result = corral("logs", "a/chat", "--since", typed)
    assert result.exit_code == 0, result.output
    (command,) = ran
    assert command[command.index("--since") + 1] == argument
    assert command[command.index("--lines") + 1] == "all"


@pytest.mark.parametrize(
    ("words", "lines"), [((), "100"), (("-n", "7"), "7"), (("--since", "1h", "-n", "0"), "0")]
)
def test_logs_have_as_many_lines_as_asked(
    ran: list[list[str]], words: tuple[str, ...], lines: str
) -> None:
    assert corral("logs", "a/chat", *words).exit_code == 0
    assert ran[0][ran[0].index("--lines") + 1] == lines


@pytest.mark.parametrize(
    "typed", ["soon", "", "-1h", "10 m", "1w", "٣m", "--output=x", "2026-13-01", "1h; reboot"]
)
def test_what_is_no_moment_is_refused(ran: list[list[str]], typed: str) -> None:
    result = corral("logs", "a/chat", f"--since={typed}")
    assert result.exit_code == 2
    assert "is not a moment, such as 10m" in result.output
    assert ran == []


def test_logs_of_builds_have_no_times(ran: list[list[str]]) -> None:
    result = corral("logs", "a/chat", "--build", "--since", "1h")
    assert isinstance(result.exception, CorralError)
    assert ran == []


@pytest.mark.parametrize(
    ("words", "lease", "limit"),
    [
        ((), 3600, control.DRAIN_SECONDS),
        (("--lease", "5m"), 300, control.DRAIN_SECONDS),
        (("--lease", "90", "--limit", "0"), 90, 0),
        (("--lease", "2h", "--limit", "1min"), 7200, 60),
    ],
)
def test_a_drain_has_a_lease_with_a_unit(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], lease: int, limit: int
) -> None:
    asked: dict[str, Any] = {}

    def drain(_: object, server: str, lease_seconds: int, **options: Any) -> Any:
        asked.update(server=server, lease=lease_seconds, **options)
        return control.Drained.model_validate({"sessions_left": 0, "seconds": 0.1})

    monkeypatch.setattr(gateway_module, "_behind", lambda *_: [target("gw").host])
    monkeypatch.setattr(control, "drain", drain)
    result = corral("gateway", "drain", "a/chat", *words)
    assert result.exit_code == 0, result.output
    assert (asked["lease"], asked["limit_seconds"]) == (lease, limit)
    assert f"serves again in {lease} s" in result.output


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        ("0", "must be at least 1 s"),
        ("5x", "is not a duration, such as 90, 90s, 5m"),
        ("-5m", "is not a duration"),
        ("1.5h", "is not a duration"),
        ("400d", "must be at most a year"),
        ("999999999999", "is not a duration"),
    ],
)
def test_a_wrong_lease_is_refused(typed: str, what: str) -> None:
    result = corral("gateway", "drain", "a/chat", f"--lease={typed}")
    assert result.exit_code == 2
    assert what in result.output
