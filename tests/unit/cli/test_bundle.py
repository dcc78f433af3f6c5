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
