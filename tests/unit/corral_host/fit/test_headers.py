"""Headers for the proof of fit: requests to the hub, files for the engine, leftovers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.plan.host import HostPlan
from lab.faults import Rule, faults
from tests.unit.proof_host import CHAT, SHARDED, ProofHost, with_need
from tests.unit.ranged_server import Served, serving
from tests.unit.running_hub import RunningHub

pytestmark = pytest.mark.slow

FILE = "Tiny-GLM-MoE-Q8_0.gguf"


@pytest.fixture
def host(tmp_path: Path, running: RunningHub) -> ProofHost:
    return ProofHost(tmp_path, running.url)


def without_headers(plan: HostPlan, unknown: str) -> HostPlan:
    """A plan that was made while the hub did not answer."""
    shards = tuple(shard.model_copy(update={"header": None}) for shard in plan.shards)
    return with_need(plan, unknown=unknown).model_copy(update={"shards": shards})


def test_the_engine_gets_the_planned_words_and_files_with_holes(host: ProofHost) -> None:
    plan = host.plan(SHARDED)
    host.tool(plan)
    (verdict,) = host.prove(plan)
    assert verdict.ok, verdict.message
    called, planned = host.called(plan), plan.instances[0].fit_argv
    assert planned
    place = planned.index("--model") + 1
    assert called["argv"] == [*planned[:place], called["argv"][place], *planned[place + 1 :]]
    names = [Path(path).name for path in plan.instances[0].shards]
    assert list(called["files"]) == names
    assert Path(called["argv"][place]).name == names[0]
    for shard, (size, used, is_link) in zip(plan.shards, called["files"].values(), strict=True):
        assert (size, is_link) == (shard.size_bytes, False)
        assert shard.header
        assert used <= shard.header.size_bytes + 64 * 1024 < shard.size_bytes


def test_only_the_bytes_of_the_headers_are_asked_for(host: ProofHost, running: RunningHub) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    before = len(running.log.getvalue())
    assert host.prove(plan)[0].ok
    sent = [line for line in running.log.getvalue()[before:].splitlines() if "GET /cdn/" in line]
    header = plan.shards[0].header
    assert header
    assert [line.split()[3:6] for line in sent] == [
        [f"range=bytes=0-{header.size_bytes - 1}", f"bytes={header.size_bytes}", "auth=no"]
    ]


def test_shards_that_are_proved_here_are_used_and_the_hub_is_not_asked(
    host: ProofHost, running: RunningHub
) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    (shard,) = plan.shards
    path = Path(shard.path)
    path.parent.mkdir(parents=True)
    path.write_bytes(running.content)
    receipt = {"sha256": shard.sha256, "size_bytes": shard.size_bytes}
    receipt["mtime_ns"] = path.stat().st_mtime_ns
    Path(f"{path}.receipt.json").write_text(json.dumps(receipt))
    plan = without_headers(plan, "http://hub: the hub does not answer")
    before = running.log.getvalue()
    assert host.prove(plan)[0].ok
    assert host.called(plan)["files"][FILE][2] is True
    assert running.log.getvalue() == before
    assert path.read_bytes() == running.content


def test_a_plan_without_headers_proves_nothing(host: ProofHost) -> None:
    plan = without_headers(host.plan(CHAT), "http://hub: the hub does not answer")
    host.tool(plan)
    assert host.prove(plan)[0].message == (
        "chat: fit not proved: http://hub: the hub does not answer\n"
        "  Next: run the same deploy again once the hub can be reached"
    )


def test_a_flipped_bit_of_the_header_is_refused(host: ProofHost, running: RunningHub) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    with faults(running.root, Rule(match=f"/cdn/*{FILE}", kind="flip", offset_bytes=100)):
        message = host.prove(plan)[0].message
    assert "the hub sent a header with sha256" in message
    assert "Nothing was fetched" in message


def test_another_file_of_that_name_is_refused(host: ProofHost, running: RunningHub) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    with faults(running.root, Rule(match=f"/cdn/*{FILE}", kind="short", size_bytes=300_000)):
        message = host.prove(plan)[0].message
    assert "the hub says 300000 bytes, the lock says 357088. Nothing was fetched" in message


def test_a_cut_connection_is_tried_again(host: ProofHost, running: RunningHub) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    with faults(running.root, Rule(match=f"/cdn/*{FILE}", kind="cut", after_bytes=99, times=1)):
        assert host.prove(plan)[0].ok


@pytest.mark.parametrize("where", ["*", "/cdn/*"])
def test_a_refusing_hub_is_named(host: ProofHost, running: RunningHub, where: str) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    with faults(running.root, Rule(match=f"{where}{FILE}", kind="status", code=403)):
        assert f"{FILE}: the hub answers 403" in host.prove(plan)[0].message


def test_a_hub_without_ranges_is_told(host: ProofHost, running: RunningHub) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    with serving() as server:
        source = server.add(FILE, Served(running.content, ranges=False))
        (shard,) = plan.shards
        moved = (shard.model_copy(update={"url": source.url}),)
        message = host.prove(plan.model_copy(update={"shards": moved}))[0].message
    assert "the hub serves no ranges, it answered 200 for a header" in message
    assert "Next: set hub_url to a hub that serves ranges" in message


def test_what_a_killed_run_left_is_removed_by_the_next(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    left = host.root / "state" / "proofs" / "chat" / FILE
    left.parent.mkdir(parents=True)
    left.write_bytes(b"GGUF")
    assert host.prove(plan)[0].ok


def test_two_runs_at_a_time_do_not_touch_each_other(host: ProofHost) -> None:
    plan = host.plan(SHARDED)
    host.tool(plan, seconds=0.3)
    both = [host.start(plan, ["chat"]) for _ in range(2)]
    reported = [running.communicate(timeout=120)[0] for running in both]
    assert [json.loads(text)[0]["message"] for text in reported] == ["", ""]
