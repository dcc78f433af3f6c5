"""What a gateway passes on to the servers of an alias follows from their engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corral import engines
from corral.catalog.entries import Engine
from corral.engines import engine_module, kinds
from corral.engines.llama.routes import CLOSED, HEALTH, OPEN
from corral.engines.routes import CHAT_ROUTES, Routes
from corral.errors import CorralError
from corral.paths import HostPaths
from corral.plan.gateway import HealthCheck, Route
from corral.planning.gateways import gateways
from corral.planning.pool_routes import closed_routes, open_routes
from tests.samples import catalog
from tests.third_engine import echo
from tests.unit.gateway_samples import fleet

BATCHES: Route = ("POST", "/v1/batches")
RERANK: Route = ("POST", "/v1/rerank")
PLAIN = HealthCheck(path="/ping")


def kind(monkeypatch: pytest.MonkeyPatch, name: str, routes: Routes) -> str:
    engine = type("Other", (type(echo.ENGINE),), {"kind": name, "routes": routes})()
    monkeypatch.setitem(vars(engines)["_ENGINES"], name, engine)
    return name


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine with a route that no other has, and without most of the others'."""
    routes = Routes(
        open=(*CHAT_ROUTES, RERANK, BATCHES), closed={("POST", "/sleep"): "x"}, health=HEALTH
    )
    return kind(monkeypatch, "batches", routes)


def pool_of(tmp_path: Path, **of: str) -> Any:
    """The pool of an alias; ``of``: instance -> kind of its engine."""
    known = catalog()
    entries = {
        name: Engine(kind=name, repository="https://x/y", commit="c0" * 20, targets=("a",))
        for name in of.values()
    }
    wider = known.model_copy(update={"engines": {**known.engines, **entries}})
    hosts = fleet(tmp_path)
    named = [
        host.model_copy(
            update={
                "spec": host.spec.model_copy(
                    update={
                        "instances": tuple(
                            one.model_copy(update={"engine": of.get(f"{host.name}_{one.name}")})
                            for one in host.spec.instances
                        )
                    }
                )
            }
        )
        for host in hosts
    ]
    (pool,) = gateways(named, wider, HostPaths())["gw"].pools
    return pool


def test_servers_of_one_engine_have_all_its_routes(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    assert pool.open == OPEN
    assert pool.closed[: len(CLOSED)] == tuple(CLOSED)
    others = [engine_module(kind).routes for kind in kinds()]
    assert set(pool.closed) == {r for one in others for r in (*one.open, *one.closed)} - set(OPEN)
    assert pool.health == HEALTH


def test_a_route_is_open_that_every_engine_of_an_alias_opens(tmp_path: Path, batches: str) -> None:
    pool = pool_of(tmp_path, two_chat=batches)
    assert pool.open == (*CHAT_ROUTES[:1], ("POST", "/v1/chat/completions"), RERANK)
    assert {BATCHES, ("POST", "/sleep"), ("POST", "/v1/embeddings")} < set(pool.closed)
    everywhere = pool_of(tmp_path, one_chat=batches, one_long=batches, two_chat=batches)
    assert everywhere.open == (*CHAT_ROUTES, RERANK, BATCHES)
    assert {*CLOSED, ("POST", "/v1/embeddings")} < set(everywhere.closed)


def test_whoever_is_out_of_reach_closes_nothing(tmp_path: Path, batches: str) -> None:
    assert pool_of(tmp_path, shy_chat=batches).open == OPEN


def test_servers_that_are_asked_for_their_health_in_other_ways_do_not_share_an_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = kind(monkeypatch, "pinged", Routes(open=CHAT_ROUTES, closed={}, health=PLAIN))
    with pytest.raises(CorralError) as caught:
        pool_of(tmp_path, two_chat=other)
    assert caught.value.where == "gw: gateway, alias small"
    assert "one/chat (llama.cpp) at /v1/health, two/chat (pinged) at /ping" in caught.value.what
    assert caught.value.next_step == 'give one of the profiles another "alias"'
    alone = pool_of(tmp_path, one_chat=other, one_long=other, two_chat=other)
    assert alone.health.expected == "status 200"


def routes() -> Iterator[tuple[str, tuple[Route, ...], Mapping[Route, str]]]:
    for name in kinds():
        known = engine_module(name).routes
        yield name, known.open, known.closed
    yield "echo", echo.ENGINE.routes.open, echo.ENGINE.routes.closed


def test_no_engine_opens_what_another_one_closes() -> None:
    """While servers of an alias change their engine, the gateway has the planned one's routes."""
    for (_, opened, _), (name, _, closed) in permutations(routes(), 2):
        assert not set(opened) & set(closed), name


@pytest.mark.parametrize("name", kinds())
def test_every_route_is_decided_once_and_has_its_reason(name: str) -> None:
    known = engine_module(name).routes
    assert not set(known.open) & set(known.closed)
    assert len(known.open) == len(set(known.open))
    assert all(known.closed.values())
    assert set(CHAT_ROUTES) <= set(known.open)
    assert set(closed_routes(open_routes([name]))) >= set(known.closed)


@pytest.mark.parametrize(
    "odd", [{"path": "health"}, {"path": "/a b"}, {"path": "/a'"}, {"answer": "it's"},
            {"answer": "a\nserver evil 10.0.0.1"}, {"answer": ""}],
)  # fmt: skip
def test_a_health_check_cannot_leave_its_line(odd: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        HealthCheck(**{"path": "/health", **odd})  # type: ignore[arg-type]
