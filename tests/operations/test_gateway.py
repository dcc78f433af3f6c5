"""A gateway in a deploy: its files travel on standard input, its key reaches instances first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.gateway.files import GatewayFiles, gateway_files
from corral.host.state import GatewayState
from corral.inventory.hosts import parse_host
from corral.planning.gateways import needed_keys
from corral.planning.load import load_planner
from corral.store.api_keys import make_missing
from operations import gateway
from tests.operations.fakes import commands, prepared, stdin, text
from tests.operations.fleet import INSTANCES, Fleet, settled_host, steps
from tests.samples import EXAMPLES, ROOT, plan

CANARY = "canary-0123456789-abcdefghij"
HELPER = "/usr/local/lib/corral/corral_host.pyz"
GATEWAY: dict[str, Any] = {
    "aliases": {"tiny-glm-moe": {"port": 8000, "may_differ": ["context", "slots"]}},
    "trusted_networks": ["10.0.0.0/24"],
}


def test_the_files_of_a_generation_travel_on_standard_input_only() -> None:
    files = GatewayFiles(generation="ab12", files={"upstream": CANARY})
    with prepared():
        (command,) = commands(gateway.generation, plan(), waiting=files)
    assert text(command).splitlines()[0] == f"python3 -I {HELPER} gateway-stage"
    assert CANARY not in text(command)
    assert json.loads(stdin(command)) == {
        "folder": "/etc/corral/gateway",
        "generation": "ab12",
        "files": {"upstream": CANARY},
    }


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(EXAMPLES)
    found = Fleet(tmp_path / "keys", tmp_path / "archives")
    found.add("server", settled_host(found, "server"))
    opened = [{**one, "address": "0.0.0.0"} for one in INSTANCES]
    found.hosts["server"] |= {"instances": opened, "member_address": "10.0.0.1"}
    found.add("gw", settled_host(found, "gw"))
    found.hosts["gw"] |= {"instances": [], "gateway": GATEWAY}
    return found


def test_keys_are_on_the_servers_before_the_gateway_shows_them(fleet: Fleet) -> None:
    state = fleet.deploy()
    assert steps(state, "gw")[0] == "gateway"
    assert "key" in steps(state, "server")
    names = ["".join(state.op_meta[one].names) for one in state.get_op_order()]  # type: ignore[no-untyped-call]
    assert names.index("API key files") < names.index("Gateway")
    assert names.index("Gateway") < next(n for n, name in enumerate(names) if "Activate" in name)


@pytest.mark.parametrize(("running", "asked"), [(True, []), (False, ["gateway"])])
def test_a_gateway_is_touched_only_where_another_generation_runs(
    fleet: Fleet, running: bool, asked: list[str]
) -> None:
    planned = generation(fleet)
    state = GatewayState(installed=planned, running=planned if running else None)
    reported = settled_host(fleet, "gw").model_copy(update={"gateway": state})
    data = fleet.hosts["gw"]
    fleet.add("gw", reported)
    fleet.hosts["gw"] = {**data, "fake_responses": fleet.hosts["gw"]["fake_responses"]}
    assert [s for s in steps(fleet.deploy(), "gw") if s.startswith("gateway")] == asked


def generation(fleet: Fleet) -> str:
    """The planned one."""
    hosts = [parse_host(f"@fake/{name}", data) for name, data in fleet.hosts.items()]
    planner = load_planner(EXAMPLES)
    plans = planner.gateways(hosts)
    make_missing(needed_keys(hosts[-1], hosts, plans), lambda _: frozenset())
    found = plans["@fake/gw"]
    files = gateway_files(hosts[-1], found, paths=planner.paths, templates=ROOT / "templates")
    return files.generation
