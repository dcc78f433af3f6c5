"""Keys are made for what no host has; what a host has is taken over, or replaced on purpose."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.host.state import GatewayState
from corral.inventory.hosts import Host, HostSpec, Inventory
from corral.keys import adoption
from corral.keys.adoption import Adopted, Wanted, adopt
from corral.keys.on_hosts import HeldKeys, names_in
from corral.planning.gateways import instance_keys, needed_keys
from corral.store.api_keys import (
    LostKeysError,
    find_keys,
    keep_keys,
    key_path,
    keys_in,
    make_missing,
    new_keys,
    stored_keys,
)
from tests.samples import absent, bare
from tests.samples import plan as plan_of
from tests.unit.gateway_samples import fleet, make_keys, plan

OWN, UPSTREAM, CLIENT = (f"{word}-0123456789-abcdefghij" for word in ("own", "upstream", "client"))


@pytest.fixture
def hosts(tmp_path: Path) -> list[Host]:
    """one and two behind gw, and shy; their store is empty."""
    return fleet(tmp_path / "store")


def nobody(_: Host) -> frozenset[str]:
    return frozenset()


def needed(hosts: list[Host], number: int) -> list[tuple[Host, str]]:
    return needed_keys(hosts[number], hosts, {"gw": plan(hosts)})


def stored(hosts: list[Host]) -> dict[str, list[str]]:
    """HOST/NAME -> keys of the store."""
    store = key_path(hosts[0], "chat").parent.parent
    files = [path for path in store.glob("*/*") if path.is_file()]
    return {f"{p.parent.name}/{p.name}": keys_in(p.read_text()) for p in files}


def test_a_plan_needs_the_keys_of_its_instances_and_of_its_gateways(hosts: list[Host]) -> None:
    assert [(host.name, name) for host, name in needed(hosts, 0)] == [
        ("one", "chat"), ("one", "long"), ("gw", "upstream-small"),
    ]  # fmt: skip
    assert [(host.name, name) for host, name in needed(hosts, 3)] == [
        ("gw", "gateway-small"), ("gw", "upstream-small"), ("gw", "gateway_metrics"),
    ]  # fmt: skip


def test_what_no_host_has_is_made_once(hosts: list[Host]) -> None:
    make_missing(needed(hosts, 0), nobody)
    first = stored(hosts)
    assert sorted(first) == ["gw/upstream-small", "one/chat", "one/long"]
    make_missing(needed(hosts, 0), nobody)
    assert stored(hosts) == first


def test_where_a_host_has_one_none_is_made_and_the_ways_out_are_told(hosts: list[Host]) -> None:
    def held(host: Host) -> frozenset[str]:
        return frozenset({"one": {"long"}, "gw": {"upstream-small"}}[host.name])

    with pytest.raises(LostKeysError) as caught:
        make_missing(needed(hosts, 0), held)
    assert caught.value.names == ("one/long", "gw/upstream-small")
    assert "`corral keys adopt one/long gw/upstream-small`" in caught.value.next_step
    assert "`corral keys new one/long gw/upstream-small`" in caught.value.next_step
    assert stored(hosts) == {}


def test_a_host_that_cannot_be_asked_gets_no_new_keys(hosts: list[Host]) -> None:
    def held(host: Host) -> frozenset[str]:
        if host.name == "gw":
            raise CorralError("gw", "not reached (no route)", "bring it up")
        return frozenset()

    with pytest.raises(LostKeysError, match="it is unknown whether the host has them: not reached"):
        make_missing(needed(hosts, 0), held)
    assert stored(hosts) == {}


def test_hosts_are_asked_only_about_what_the_store_lacks(hosts: list[Host]) -> None:
    make_keys(hosts)
    make_missing(needed(hosts, 0), lambda host: pytest.fail(f"{host.name} was asked"))


def test_what_a_state_says_of_keys_is_what_the_host_has() -> None:
    found = bare(
        plan_of({"name": "chat", "profile": "chat", "port": 8001}),
        instances={
            "chat": absent().model_copy(update={"has_keys": True}).model_dump(),
            "long": absent().model_dump(),
        },
        gateway=GatewayState(keys=("gateway-small",)).model_dump(),
    )
    assert names_in(found) == {"chat", "gateway-small"}


def test_two_clones_with_one_store_agree(hosts: list[Host]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: make_missing(needed(hosts, 0), nobody), range(8)))
        found = list(pool.map(lambda _: stored(hosts), range(2)))
    assert found[0] == found[1]
    assert {len(keys) for keys in found[0].values()} == {1}


@pytest.mark.parametrize("links", [True, False], ids=["links", "a folder without links"])
def test_of_two_who_create_one_wins_and_the_other_reads_it(
    links: bool, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some shared folders know one name a file."""

    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    make_missing([(hosts[0], "chat")], nobody)
    first = stored(hosts)
    # The second looked before the first wrote.
    monkeypatch.setattr("corral.store.api_keys.find_keys", lambda *_: None)
    make_missing([(hosts[0], "chat")], nobody)
    assert stored(hosts) == first
    assert stat.S_IMODE(key_path(hosts[0], "chat").stat().st_mode) == 0o600
    assert [path.name for path in key_path(hosts[0], "chat").parent.iterdir()] == ["chat"]


def test_a_store_that_cannot_be_read_is_not_an_empty_one(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(CorralError, match="cannot be read: Permission denied"):
        make_missing(needed(hosts, 0), nobody)


def test_no_look_makes_keys(hosts: list[Host]) -> None:
    with pytest.raises(LostKeysError, match="has no keys for it"):
        instance_keys(hosts[0], "chat", hosts, {"gw": plan(hosts)})
    assert stored(hosts) == {}


Answers = Callable[..., None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What hosts say that they have, by name; a host that is not named is not reached."""

    def play(**found: HeldKeys) -> None:
        def held(host: Host) -> HeldKeys:
            if host.name in found:
                return found[host.name]
            raise CorralError(host.name, "not reached (no route)", "bring it up")

        monkeypatch.setattr(adoption, "held_keys", held)

    return play


GATEWAY = HeldKeys(
    gateway={
        "gateway-small": f"{CLIENT}\n", "upstream-small": f"{UPSTREAM}\n",
        "gateway_metrics": f"metrics-{CLIENT}\n",
    }
)  # fmt: skip
ONE = HeldKeys(instances={"chat": f"{OWN}\n{CLIENT}\n{UPSTREAM}\n"})


def taken(
    hosts: list[Host], *wanted: Wanted, replace: bool = False, wrong: Sequence[str] = ()
) -> list[Adopted]:
    """+ wrong: hosts with a mistake in their data."""
    mistakes = {name: CorralError(name, "is wrong", "edit it") for name in wrong}
    read = Inventory(path=Path("i.py"), hosts=tuple(hosts), mistakes=mistakes)
    return adopt(list(wanted), read, replace=replace)


def test_what_is_taken_over_gives_the_same_files_again(hosts: list[Host], answers: Answers) -> None:
    answers(one=ONE, gw=GATEWAY)
    done = taken(hosts, Wanted(host=hosts[0]), Wanted(host=hosts[3]))
    assert [(one.name, one.changed, one.problem) for one in done] == [
        ("one/chat", True, ""), ("gw/gateway-small", True, ""), ("gw/upstream-small", True, ""),
        ("gw/gateway_metrics", True, ""),
    ]  # fmt: skip
    assert stored(hosts)["one/chat"] == [OWN, CLIENT]
    found = instance_keys(hosts[0], "chat", hosts, {"gw": plan(hosts)})
    assert found.text == ONE.instances["chat"]
    assert stat.S_IMODE(key_path(hosts[0], "chat").stat().st_mode) == 0o600
    again = taken(hosts, Wanted(host=hosts[0], names=("chat",)))
    assert [(one.changed, one.problem) for one in again] == [(False, "")]
    assert taken(hosts, Wanted(host=hosts[0])) == []


def test_without_its_gateway_a_key_of_which_nobody_knows_whose_it_is_stays(
    hosts: list[Host], answers: Answers
) -> None:
    answers(one=ONE)
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)))
    assert "a gateway did not answer" in done.problem
    assert stored(hosts) == {}
    keep_keys(hosts[3], "upstream-small", [UPSTREAM])
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)))
    assert done.changed
    assert stored(hosts)["one/chat"] == [OWN, CLIENT]


def test_a_gateway_with_a_mistake_is_asked_and_its_folder_not_believed(
    hosts: list[Host], answers: Answers
) -> None:
    """Of its data nothing is known but that it is a gateway."""
    keep_keys(hosts[3], "upstream-small", [UPSTREAM])
    data = hosts[3].data
    hosts[3] = Host(name="gw", data=data, spec=HostSpec(keys_folder=data["keys_folder"]))
    answers(one=ONE)
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)), wrong=["gw"])
    assert "a gateway did not answer" in done.problem
    answers(one=ONE, gw=GATEWAY)
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)), wrong=["gw"])
    assert done.changed
    assert stored(hosts)["one/chat"] == [OWN, CLIENT]


def test_other_keys_of_the_store_are_replaced_on_purpose_and_kept_aside(
    hosts: list[Host], answers: Answers
) -> None:
    answers(one=ONE, gw=GATEWAY)
    keep_keys(hosts[0], "chat", [f"mine-{OWN}"])
    (refused,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)))
    assert "the store has other keys" in refused.problem
    assert "--replace" in refused.problem
    assert stored(hosts)["one/chat"] == [f"mine-{OWN}"]
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)), replace=True)
    assert done.changed
    assert stored(hosts)["one/chat"] == [OWN, CLIENT]
    (aside,) = (key_path(hosts[0], "chat").parent / ".replaced").iterdir()
    assert keys_in(aside.read_text()) == [f"mine-{OWN}"]
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_what_a_host_does_not_have_or_cannot_say_is_told(
    hosts: list[Host], answers: Answers
) -> None:
    answers(one=HeldKeys(), gw=GATEWAY)
    done = taken(hosts, Wanted(host=hosts[0], names=("chat",)), Wanted(host=hosts[1]))
    assert "one has no keys for it. Next: run `corral keys new one/chat`" in done[0].problem
    assert (done[1].name, done[1].problem) == ("two", "not reached (no route). Next: bring it up")


@pytest.mark.parametrize("text", ["short\n", f"{OWN}\r\n", "\n", f"{OWN} {CLIENT}\n"])
def test_keys_that_a_server_would_misread_are_not_taken_over(
    text: str, hosts: list[Host], answers: Answers
) -> None:
    answers(one=HeldKeys(instances={"chat": text}), gw=GATEWAY)
    (done,) = taken(hosts, Wanted(host=hosts[0], names=("chat",)))
    assert done.problem
    assert not done.changed
    assert OWN not in done.problem
    assert stored(hosts) == {}


@pytest.mark.parametrize("name", ["gateway-../../x", "gateway-a/b", "..", ""])
def test_a_name_that_leads_out_of_the_store_is_refused(
    name: str, hosts: list[Host], answers: Answers
) -> None:
    answers(gw=HeldKeys(gateway={name: f"{CLIENT}\n"}))
    done = taken(hosts, Wanted(host=hosts[3]))
    assert [bool(one.problem) for one in done] == [True]
    assert stored(hosts) == {}


def test_a_new_key_never_begins_with_a_dash(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = iter(["-" + "a" * 42, "-" + "b" * 42, "c" * 43])
    monkeypatch.setattr("corral.store.api_keys.secrets.token_urlsafe", lambda _: next(random))
    new_keys(hosts[0], "chat")
    assert stored_keys(hosts[0], "chat").first == "c" * 43


def test_a_new_key_is_made_on_purpose(hosts: list[Host]) -> None:
    new_keys(hosts[0], "chat")
    first = stored_keys(hosts[0], "chat").first
    with pytest.raises(CorralError, match="--replace"):
        new_keys(hosts[0], "chat")
    assert stored_keys(hosts[0], "chat").first == first
    new_keys(hosts[0], "chat", replace=True)
    found = find_keys(hosts[0], "chat")
    assert found
    assert found.first != first


def test_no_plain_way_of_printing_shows_what_a_host_said() -> None:
    shown = [repr(ONE), str(ONE), f"{ONE!r}", repr([ONE])]
    assert not [text for text in shown if OWN in text]
