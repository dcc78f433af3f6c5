"""`corral start`, `stop`, `restart` of instances behind a gateway: in which order what is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from corral.cli import fronts, services
from corral.errors import CorralError
from corral.gateway import control
from tests.unit.cli.test_cli import SITE, Corral, assert_one_message, corral
from tests.unit.rollout.test_pausing import Fronts, server

__all__ = ["corral"]
GATEWAY = 'servers.append(("gw", {"gateway": {"aliases": {"tiny-glm-moe": {"port": 8000}}}}))\n'
SITE_PATH = "inventories/site.py"


class Site(Fronts):
    """node-1 and node-2 behind gw; ``codes``: of systemctl, by unit."""

    def __init__(self, corral: Corral, monkeypatch: pytest.MonkeyPatch, *down: str) -> None:
        names = ("node-1/chat", "node-2/chat")
        super().__init__(monkeypatch, gw=[server(name, up=name not in down) for name in names])
        self.problem = ""
        self.code = 0
        monkeypatch.setattr(services, "run_on", self._run_on)
        monkeypatch.setattr(services, "_not_ready", lambda _: self.problem)
        (corral.root / SITE_PATH).write_text(SITE + GATEWAY)

    def _run_on(self, host: Any, words: list[str]) -> int:
        self.log.append(f"{' '.join(words)} on {host.name}")
        if words[1] == "stop" and not self.code:
            name = words[2].removeprefix("corral-").removesuffix(".service")
            self.rows["gw"] = [
                one.model_copy(update={"up": one.up and one.server != f"{host.name}_{name}"})
                for one in self.rows["gw"]
            ]
        return self.code


@pytest.fixture
def site(corral: Corral, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(corral, monkeypatch)


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_a_member_is_drained_before_it_is_touched(verb: str, corral: Corral, site: Site) -> None:
    said = corral(verb, "node-1/chat")
    assert said.code == 0
    assert site.log == [
        "drain node-1/chat at gw for 60 s",
        f"systemctl {verb} corral-chat.service on node-1",
        "release node-1/chat at gw",
    ]
    assert said.out.endswith(f"node-1/chat: {'stopped' if verb == 'stop' else 'ready'}\n")


def test_members_are_restarted_one_after_the_other(corral: Corral, site: Site) -> None:
    assert corral("restart", "chat").code == 0
    assert [line.split()[0] for line in site.log] == ["drain", "systemctl", "release"] * 2


def test_all_members_are_stopped_by_force_alone(corral: Corral, site: Site) -> None:
    said = corral("stop", "chat", "-i", SITE_PATH)
    assert_one_message(said, "node-1/chat and node-2/chat", "are the last servers of small at gw",
                       f"`corral stop chat -i {SITE_PATH} --force`")  # fmt: skip
    assert site.log == []
    assert corral("stop", "chat", "-i", SITE_PATH, "--force").code == 0
    assert len([line for line in site.log if line.startswith("systemctl stop")]) == 2


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_the_last_member_that_serves_stays(
    verb: str, corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch, "node-2/chat")
    assert_one_message(corral(verb, "node-1/chat"), "is the last server of small at gw")
    assert site.log == []
    assert corral(verb, "node-2/chat").code == (0 if verb == "stop" else 1)
    # Its checks could have passed again a moment before.
    assert site.log == [
        "drain node-2/chat at gw for 60 s",
        f"systemctl {verb} corral-chat.service on node-2",
        "release node-2/chat at gw",
    ]


def test_a_start_drains_nobody_and_waits_for_the_gateway(
    corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(corral, monkeypatch, "node-1/chat")
    said = corral("start", "node-1/chat")
    assert site.log == ["systemctl start corral-chat.service on node-1"]
    assert said.code == 1
    assert "gw: node-1/chat does not pass its checks" in said.out
    assert corral("start", "node-2/chat").code == 0


@pytest.mark.parametrize(("code", "problem"), [(1, ""), (0, "the server died at start")])
def test_what_does_not_come_back_goes_on_without_requests_until_its_gateway_sees_it(
    code: int, problem: str, corral: Corral, site: Site
) -> None:
    site.code, site.problem = code, problem
    said = corral("restart", "node-1/chat")
    assert said.code == 1
    assert "node-1/chat: failed" in said.out
    assert problem in said.err
    # The gateway takes it for up still, so the lease ends by itself.
    assert not [line for line in site.log if "release" in line]


KEPT = {"alias": "tiny-glm-moe", "endpoint": {"address": "0.0.0.0", "port": 8001}}


@pytest.mark.parametrize(
    ("kept", "code"),
    [
        (KEPT, 1),
        ({**KEPT, "alias": "other"}, 0),
        ({**KEPT, "endpoint": {"socket": "/run/s"}}, 0),
        ({**KEPT, "endpoint": {"address": "127.0.0.1", "port": 8001}}, 0),
        # Of an earlier version, or none: nobody knows.
        ({}, 1),
        (None, 1),
    ],
)
def test_a_silent_gateway_matters_to_those_that_it_may_have(
    kept: dict[str, Any] | None, code: int, corral: Corral, site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def found_on(_: object) -> dict[str, Any]:
        return {} if kept is None else {"chat": SimpleNamespace(plan=kept)}

    def silent(_: object) -> None:
        raise CorralError("gw", "not reached", "x")

    monkeypatch.setattr(fronts, "observed_on", found_on)
    monkeypatch.setattr(control, "state", silent)
    for verb in ("stop", "restart", "start"):
        assert corral(verb, "node-1/chat").code == code
    done = ("start",) if code else ("stop", "restart", "start")
    assert site.log == [f"systemctl {verb} corral-chat.service on node-1" for verb in done]


def test_an_instance_that_no_gateway_has_is_stopped_at_once(corral: Corral, site: Site) -> None:
    assert corral("stop", "node-1/long").code == 0
    assert site.log == ["systemctl stop corral-long.service on node-1"]
