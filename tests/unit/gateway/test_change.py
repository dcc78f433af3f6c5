"""What a gateway becomes while some of its servers have not changed yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway import change as changes
from corral.gateway import control, moves
from corral.gateway.change import GatewayChange, refuse_lost_keys
from corral.gateway.control import Installed
from corral.gateway.files import GatewayFiles, gateway_files
from corral.gateway.moves import Place
from corral.inventory.hosts import Host
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.plan.key_digest import key_digest
from corral.rollout.traffic import unplanned_traffic
from tests.samples import ROOT
from tests.unit.gateway_samples import fleet, make_keys, plan

TEMPLATES = ROOT / "templates"
Lines = list[dict[str, str]]


class There:
    """A gateway that has a generation; notes what it is told."""

    def __init__(self, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys = keys
        self.hosts = fleet(keys)
        make_keys(self.hosts)
        self.now = installed(self.files())
        self.placed: list[Any] = []
        monkeypatch.setattr(control, "installed", lambda _: self.now)
        monkeypatch.setattr(control, "place", lambda *told: self.placed.append(told[2]))

    @property
    def gateway(self) -> Host:
        return self.hosts[-1]

    def files(self) -> GatewayFiles:
        planned = plan(self.hosts)
        return gateway_files(self.gateway, planned, paths=HostPaths(), templates=TEMPLATES)

    def change(self, planned: GatewayPlan, settled: Callable[[str], bool]) -> GatewayChange | None:
        return changes.change(
            self.gateway, planned, settled, paths=HostPaths(), templates=TEMPLATES
        )


def installed(files: GatewayFiles, **more: Any) -> Installed:
    texts = {name: text.replace(files.generation, "") for name, text in files.files.items()}
    pairs = [line.split() for line in texts["upstream"].splitlines()]
    fields = {
        "generation": files.generation, "running": files.generation, "whole": True,
        "config": texts["haproxy.cfg"],
        "files": {n: key_digest(t) for n, t in texts.items() if n != "haproxy.cfg"},
        "upstream": {pool: key_digest(key) for pool, key in pairs},
    }  # fmt: skip
    return Installed.model_validate(fields | more)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    return There(tmp_path, monkeypatch)


def moved(there: There, **more: Any) -> GatewayPlan:
    """one/chat has another port in the plan."""
    planned = plan(there.hosts)
    (pool,) = planned.pools
    first, *others = pool.members
    members = (first.model_copy(update={"port": 9001, **more}), *others)
    return planned.model_copy(update={"pools": (pool.model_copy(update={"members": members}),)})


def everybody(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def test_what_runs_whole_and_proved_is_no_change(there: There) -> None:
    assert there.change(plan(there.hosts), everybody) is None
    assert there.change(plan(there.hosts), nobody) is None
    there.now = there.now.model_copy(update={"whole": False})
    found = there.change(plan(there.hosts), everybody)
    assert found is not None
    assert found.changes == ("its files were edited, or it runs another generation",)


def test_a_server_that_has_not_changed_is_left_where_it_is(there: There) -> None:
    planned = moved(there)
    assert there.change(planned, nobody) is None
    found = there.change(planned, everybody)
    assert found is not None
    assert found.plan == planned
    assert [line[0] for line in found.changes] == ["-", "+"]
    assert "9001" in found.changes[1]


def test_a_new_server_waits_until_it_has_changed(there: There) -> None:
    known = there.now.config.splitlines(keepends=True)
    gone = "".join(line for line in known if "server one_chat" not in line)
    there.now = there.now.model_copy(update={"config": gone})
    found = changes.interim(plan(there.hosts), there.now, nobody)
    assert [m.name for m in found.pools[0].members] == ["one/long", "two/chat"]
    nothing = Installed(generation=None)
    assert changes.interim(plan(there.hosts), nothing, nobody) == plan(there.hosts)


def test_servers_are_shown_the_key_that_they_have_until_all_have_the_new_one(there: There) -> None:
    store = there.keys / "gw/upstream-small"
    old = store.read_text()
    store.write_text(f"{'n' * 40}\n{old}")
    waits = there.change(plan(there.hosts), nobody)
    assert waits is None
    found = there.change(plan(there.hosts), everybody)
    assert found is not None
    assert found.files.files["upstream"] == f"small {'n' * 40}\n"
    assert found.changes == ("the key that it sends to servers: changed",)
    assert "nnnn" not in str(found.changes)


def test_a_key_that_the_store_lost_while_it_is_shown_is_refused(there: There) -> None:
    (there.keys / "gw/upstream-small").write_text(f"{'n' * 40}\n")
    with pytest.raises(CorralError, match="add it again as the last line"):
        there.change(plan(there.hosts), nobody)
    with pytest.raises(CorralError, match="add it again as the last line"):
        refuse_lost_keys(there.gateway, plan(there.hosts), there.now.upstream)


def test_what_changes_is_told_without_a_secret(there: There) -> None:
    with (there.keys / "gw/gateway-small").open("a") as clients:
        clients.write("another-client-0123456789\n")
    found = there.change(plan(there.hosts), nobody)
    assert found is not None
    assert found.changes == ("client keys of small: changed",)
    there.now = Installed(generation=None)
    first = there.change(plan(there.hosts), nobody)
    assert first is not None
    assert first.changes == ("new",)


HERE = Place(alias="small", address="0.0.0.0", port=8001)


def expect(there: There, place: Place) -> list[Any]:
    """The lines that were placed, after which ``keep`` is told to come or not."""
    one, gateway = there.hosts[0], plan(there.hosts)
    moving = moves.expect(there.gateway, gateway, there.now, one, "one/chat", place)
    assert moving is (place != HERE)
    return there.placed


def keep(there: There, place: Place | None) -> list[Any]:
    one, gateway = there.hosts[0], plan(there.hosts)
    moves.keep(there.gateway, gateway, one, "one/chat", place)
    return there.placed


def test_a_server_that_stays_is_no_matter_of_the_gateway(there: There) -> None:
    assert expect(there, HERE) == keep(there, HERE) == keep(there, None) == []


def test_a_server_that_moves_is_looked_for_in_both_places_then_in_one(there: There) -> None:
    new = HERE.model_copy(update={"port": 9001})
    (both,) = expect(there, new)
    assert [(one["server"], one["place"]) for one in both] == [
        ("one_chat", "10.0.0.11:8001"), ("one_chat:next", "10.0.0.11:9001"),
    ]  # fmt: skip
    there.placed.clear()
    ((alone,),) = keep(there, new)
    assert (alone["server"], alone["place"], alone["weight"]) == (
        "one_chat",
        "10.0.0.11:9001",
        "100",
    )


def test_a_server_that_came_back_is_looked_for_where_it_was(there: There) -> None:
    line = "  server one_chat 10.0.0.11:8001 weight 100\n"
    assert line in there.now.config
    twice = there.now.config.replace(
        line, f"{line}  server one_chat:next 10.0.0.11:9001 weight 100\n"
    )
    there.now = there.now.model_copy(update={"config": twice})
    ((alone,),) = keep(there, None)
    assert (alone["server"], alone["place"]) == ("one_chat", "10.0.0.11:8001")


def test_a_share_that_is_planned_anew_waits_for_the_gateways_own_change(there: There) -> None:
    changed = there.now.config.replace("10.0.0.11:8001 weight 100", "10.0.0.11:8001 weight 7")
    there.now = there.now.model_copy(update={"config": changed})
    ((alone,),) = keep(there, HERE.model_copy(update={"port": 9001}))
    assert alone["weight"] == "7"


def test_gateways_that_cannot_be_planned_follow_as_well(there: There) -> None:
    """As `corral revert` with a mistake in some profile: what they have is enough."""
    said: list[str] = []
    new = HERE.model_copy(update={"port": 9001})
    lighter = there.now.config.replace("10.0.0.11:8001 weight 100", "10.0.0.11:8001 weight 7")
    there.now = there.now.model_copy(update={"config": lighter})
    found = unplanned_traffic(there.hosts, said.append)
    assert found.expect("one/chat", new)
    found.keep("one/chat", new)
    both, alone = there.placed
    assert [one["place"] for one in both] == ["10.0.0.11:8001", "10.0.0.11:9001"]
    assert [(one["place"], one["weight"]) for one in alone] == [("10.0.0.11:9001", "7")]
    assert said == []


def test_a_gateway_with_a_mistake_of_its_own_is_left_as_it_is(there: There) -> None:
    said: list[str] = []
    broken = there.gateway.spec.model_copy(update={"gateway": None})
    changed = {"spec": broken, "origin": "inventories/mine.py"}
    hosts = [*there.hosts[:-1], there.gateway.model_copy(update=changed)]
    found = unplanned_traffic(hosts, said.append)
    assert not found.expect("one/chat", HERE.model_copy(update={"port": 9001}))
    assert there.placed == []
    assert said == [
        "gw does not get the place of one/chat: its data has a mistake. "
        "Next: fix that, then run `pyinfra inventories/mine.py deploy.py --limit gw`"
    ]


@pytest.mark.parametrize(
    "end",
    [
        None, {"address": "not an address", "port": 1}, {"address": "10.0.0.1", "port": "many"},
        {"address": ["10.0.0.1"], "port": 1},
    ],
)  # fmt: skip
def test_a_kept_plan_that_says_nothing_readable_moves_nobody(end: Any) -> None:
    assert moves.stored_place({"alias": "small", "endpoint": end}) is None
    assert moves.stored_place({"alias": 1, "endpoint": {"address": None, "port": None}}) is None
    good = {"alias": "small", "endpoint": {"address": "0.0.0.0", "port": 8001, "socket": None}}
    assert moves.stored_place(good) == HERE


def test_a_server_that_the_gateway_does_not_reach_any_more_has_no_line(there: There) -> None:
    assert expect(there, HERE.model_copy(update={"address": "127.0.0.1"})) == []
    assert keep(there, HERE.model_copy(update={"alias": "unknown"})) == [[]]
