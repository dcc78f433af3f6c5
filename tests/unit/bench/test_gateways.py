"""`corral bench --stop` behind a gateway: no request fails for a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from corral.bench.result import Result
from corral.bench.run import Benchmark
from corral.errors import CorralError
from tests.unit.bench_samples import result
from tests.unit.cli.test_cli import SITE, Corral, Said, assert_one_message, corral
from tests.unit.cli.test_services import SITE_PATH, Site

__all__ = ["corral"]
Bench = Callable[..., Said]


@pytest.fixture
def bench(
    corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Site, str], Bench]:
    """The command over a site, whose hosts measure, or fail with what is said."""

    def over(site: Site, fault: str = "") -> Bench:
        def run(benchmark: Benchmark, *_: object) -> Result:
            site.log.append(f"measure {benchmark.name} {benchmark.where}")
            if fault:
                raise CorralError(benchmark.name, fault, "ask again")
            return result()

        monkeypatch.setattr(import_module("corral.cli.bench"), "run", run)
        return lambda *words: corral("bench", *words, "--results", str(tmp_path / "results"))

    return over


def test_a_server_that_is_stopped_for_it_is_drained_first(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch)
    said = bench(site)("node-1/chat", "--stop", "--json")
    assert (said.code, len(json.loads(said.out))) == (0, 1)
    assert site.log == [
        "drain node-1/chat at gw for 60 s", "measure node-1/chat stop", "release node-1/chat at gw",
    ]  # fmt: skip
    site.log.clear()
    assert bench(site)("node-1/chat").code == 0
    assert site.log == ["measure node-1/chat beside"]


def test_where_no_gateway_is_nobody_is_asked(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch)
    (corral.root / SITE_PATH).write_text(SITE)
    assert bench(site)("node-1", "node-2", "--stop").code == 0
    measured = [f"measure {name} stop" for name in ("node-1/chat", "node-1/long", "node-2/chat")]
    assert sorted(site.log) == measured


def test_the_last_server_is_stopped_for_it_by_force_alone(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch, "node-2/chat")
    said = bench(site)("node-1/chat", "--stop")
    assert_one_message(said, "is the last server of small at gw")
    assert "`corral bench node-1/chat --stop --force`" in said.err
    assert site.log == []
    assert bench(site)("node-1/chat", "--stop", "--force").code == 0
    assert site.log[1] == "measure node-1/chat stop"


def test_hosts_that_are_measured_at_the_same_time_are_not_all_of_an_alias(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch)
    assert_one_message(bench(site)("node-1", "node-2", "--stop"), "are the last servers of small")
    assert site.log == []


def test_what_failed_may_be_down_and_gets_no_requests_until_its_lease_ends(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch)
    said = bench(site, "chat IS DOWN")("node-1/chat", "--stop")
    assert said.code == 1
    assert site.log == ["drain node-1/chat at gw for 60 s", "measure node-1/chat stop"]
    assert "gw sends node-1/chat requests again within 60 s" in said.err
    assert "chat IS DOWN" in said.err


def test_with_requests_in_flight_nothing_is_stopped(
    bench: Callable[..., Bench], corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch)
    site.left = 2
    said = bench(site)("node-1/chat", "--stop")
    assert said.code == 1
    assert "2 requests by way of gw were still in flight" in said.err
    assert site.log == ["drain node-1/chat at gw for 60 s", "release node-1/chat at gw"]
    assert SITE_PATH not in said.err
