"""Which hosts of a deploy take part in a swarm, and what they are asked to bring and to serve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import State

from corral.paths import HOST_PATHS
from corral.plan.swarm import SwarmPeer, SwarmPlan
from corral.store.engine_archives import ArchiveStore
from operations import engine
from tests.operations.fakes import prepared
from tests.operations.fleet import (
    ARCHIVE,
    ENDED,
    Fleet,
    asked,
    bare_host,
    failed,
    jobs,
    sent,
    settled_host,
)
from tests.samples import CHAT, plan

NAMES = ("one", "two", "three")


def member(fleet: Fleet, number: int, state: Any) -> None:
    name = NAMES[number]
    fleet.add(name, state)
    fleet.hosts[name] |= {"swarm": True, "member_address": f"10.0.0.{number + 1}"}


def exchanged(state: State, name: str) -> list[Any]:
    """Specs of the jobs that exchange weights."""
    return [job["spec"] for job in sent(state, name) if job["kind"] == "swarm"]


def test_hosts_that_lack_weights_take_part_and_know_each_other(fleet: Fleet) -> None:
    for number in range(2):
        member(fleet, number, bare_host(fleet, NAMES[number]))
    state = fleet.deploy()
    assert failed(state) == set()
    (found,) = exchanged(state, "one")
    assert not [job for job in sent(state, "one") if job["kind"] == "fetch"]
    assert found["held"] == []
    assert len(found["shards"]) == len(fleet.plan("one").shards)
    assert [peer["address"] for peer in found["swarm"]["peers"]] == ["10.0.0.1", "10.0.0.2"]
    assert len(found["swarm"]["expected"]) == 1


def test_a_host_that_has_all_serves_those_that_lack_some(fleet: Fleet) -> None:
    member(fleet, 0, settled_host(fleet, "one"))
    member(fleet, 1, bare_host(fleet, "two"))
    state = fleet.deploy()
    assert failed(state) == set()
    (found,) = exchanged(state, "one")
    assert found["shards"] == []
    assert {one["sha256"] for one in found["held"]} == {s.sha256 for s in fleet.plan("one").shards}


def test_where_nothing_is_missing_nothing_is_served(fleet: Fleet) -> None:
    for number in range(2):
        member(fleet, number, settled_host(fleet, NAMES[number]))
    state = fleet.deploy()
    assert failed(state) == set()
    assert exchanged(state, "one") == exchanged(state, "two") == []


def test_a_host_that_failed_before_is_not_waited_for(fleet: Fleet) -> None:
    member(fleet, 0, settled_host(fleet, "one"))
    member(fleet, 1, bare_host(fleet, "two", systemd=False))
    state = fleet.deploy()
    assert len(failed(state)) == 1
    assert exchanged(state, "one") == []


def sharers(fleet: Fleet, *arrived: str, **answers: Any) -> None:
    """Three bare members; what comes from other hosts has these digests."""
    share = json.dumps({**ENDED, "answer": {"arrived": list(arrived)}, **answers})
    for number, name in enumerate(NAMES):
        member(fleet, number, bare_host(fleet, name))
        responses = {" poll fetch": share, **fleet.hosts[name]["fake_responses"]}
        fleet.hosts[name]["fake_responses"] = responses


def shared(state: State, name: str) -> list[tuple[int, int, list[str]]]:
    """Of each job that shares archives: how many are held, how many wanted, who takes part."""
    specs = [job["spec"] for job in sent(state, name) if job["kind"] == "share"]
    return [(len(spec["held"]), len(spec["archives"]), spec["swarm"]["expected"]) for spec in specs]


def archives_sent(state: State, name: str) -> int:
    """How many archives the controller sent to a host."""
    return sum("mv -T" in line and ".tar.zst" in line for line in asked(state, name))


def test_an_archive_is_sent_to_one_host_and_the_others_take_it_from_there(fleet: Fleet) -> None:
    sharers(fleet, hashlib.sha256(ARCHIVE).hexdigest())
    state = fleet.deploy()
    assert failed(state) == set()
    assert shared(state, "one") == []  # it built the release
    assert shared(state, "two") == [(1, 0, ["@fake/three"])]
    assert shared(state, "three") == [(0, 1, ["@fake/two"])]
    assert [archives_sent(state, name) for name in NAMES] == [0, 1, 0]
    assert jobs(state, "two") == jobs(state, "three") == ["install"]


def test_an_archive_that_did_not_arrive_is_sent_by_the_controller(fleet: Fleet) -> None:
    sharers(fleet)
    state = fleet.deploy()
    assert failed(state) == set()
    assert [archives_sent(state, name) for name in NAMES] == [0, 1, 1]
    assert jobs(state, "two") == jobs(state, "three") == ["install"]


def test_an_answer_about_archives_of_another_shape_fails_its_host(fleet: Fleet) -> None:
    sharers(fleet, answer={"arrived": 5})
    assert failed(fleet.deploy()) == {"two", "three"}


@pytest.mark.parametrize("move", [engine.send_first, engine.exchange])
def test_an_archive_that_was_damaged_meanwhile_is_reported(
    move: Callable[..., bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (release,) = plan(CHAT).releases
    described = tmp_path / release.engine / f"{release.key}.json"
    described.parent.mkdir()
    described.write_text("{")
    peers = tuple(SwarmPeer(name=name, address="10.0.0.1", port=1) for name in NAMES)
    swarm = SwarmPlan(
        name="one", peers=peers, from_hub=1, upload_bytes_per_second=0, upload_seconds=1,
        connections=1,
    )  # fmt: skip
    sharing = engine.Sharing(swarm, lambda _: NAMES)
    with prepared() as host:
        supply = engine.Supply(HOST_PATHS, ArchiveStore(tmp_path))
        assert not move(host.state, host, [release], supply, sharing)
    assert f"{described}: " in caplog.text
    assert "Next: " in caplog.text


def test_one_host_that_lacks_a_release_gets_it_from_the_controller(fleet: Fleet) -> None:
    for number in range(2):
        member(fleet, number, bare_host(fleet, NAMES[number]))
    state = fleet.deploy()
    assert shared(state, "one") == shared(state, "two") == []
    assert archives_sent(state, "two") == 1
