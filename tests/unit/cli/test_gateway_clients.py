"""`corral gateway clients`: how often each client asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli
from corral.cli import gateway as gateway_module
from corral.errors import CorralError
from corral.gateway.control import ClientCount
from tests.samples import host

COUNT = ClientCount(pool="small", client="alice", requests=7, refused=0, failed=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two gateways, of which one is silent; what they were asked."""
    found: list[Any] = []
    pairs = [(host(name=name), None) for name in ("gw", "silent")]

    def clients(gateway: Any, seconds: int) -> list[ClientCount]:
        found.append((gateway.name, seconds))
        if gateway.name == "silent":
            raise CorralError("silent", "does not answer", "see its log")
        return [COUNT]

    monkeypatch.setattr(gateway_module, "_gateways", lambda _: (pairs, []))
    monkeypatch.setattr("corral.gateway.control.clients", clients)
    return found


def corral(*words: str) -> Result:
    return CliRunner().invoke(cli, ["gateway", "clients", *words])


def test_clients_are_listed_and_a_silent_gateway_is_told(asked: list[Any]) -> None:
    done = corral("--since", "90m")
    assert done.exit_code == 1
    assert "silent: does not answer" in done.output
    (row,) = [line.split() for line in done.output.splitlines() if "alice" in line]
    assert row == ["gw", "small", "alice", "7", "1", "0"]
    assert sorted(asked) == [("gw", 5400), ("silent", 5400)]


@pytest.mark.usefixtures("asked")
def test_json_has_the_gateways_that_answer() -> None:
    assert json.loads(corral("--json").stdout) == {"gw": [COUNT.model_dump()]}
