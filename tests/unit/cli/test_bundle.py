"""`corral bundle serve`: how hosts reach it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from corral.cli import cli
from corral.errors import CorralError
from tests.samples import EXAMPLES
from tests.unit.offline import made

LAB = "inventories/lab.py"


def test_a_bundle_is_proved_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made.write(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["bundle", "verify", "disk"])
    assert done.exception is None
    assert "all as the manifest says" in done.output
    asked = ["bundle", "-o", "other", "inventories/prod.py"]
    assert "not inside a Corral checkout" in str(CliRunner().invoke(cli, asked).exception)


@pytest.mark.parametrize("ways", [(), ("--address", "127.0.0.1", "--ssh", LAB)])
def test_hosts_reach_it_by_an_address_or_by_ssh(tmp_path: Path, ways: tuple[str, ...]) -> None:
    made.write(tmp_path / "disk")
    done = CliRunner().invoke(cli, ["bundle", "serve", str(tmp_path / "disk"), *ways])
    assert isinstance(done.exception, CorralError)
    assert "--address ADDRESS, or --ssh INVENTORY" in done.exception.next_step


def test_ssh_is_for_hosts_with_their_bundle_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    made.write(tmp_path / "disk")
    done = CliRunner().invoke(cli, ["bundle", "serve", str(tmp_path / "disk"), "--ssh", LAB])
    assert isinstance(done.exception, CorralError)
    assert "no host has a" in done.exception.what
