"""Changes of a gateway on its host: staged, switched and proved or reverted; kills at any time."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

CONFIG = "# {0}\nbackend small\n  server a_chat 10.0.0.1:8001 weight 100\n"
POOL = {"alias": "small", "name": "small", "port": 80, "members": []}


class Gateway:
    """Generations in a folder, with scripted HAProxy and systemd; notes their calls."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.setup = (
            helper_module("gateway.change"),
            helper_module("gateway.generations"),
        )
        self.fault = helper_module("system.commands").HostError
        self.root, self.valid, self.serving = root / "gateway", True, {"small"}
        self.log: list[str] = []
        self.checks: dict[str, bool] = {}
        monkeypatch.setattr(helper_module("gateway.control"), "LOCK", str(root / "lock"))
        for module in (self.module, helper_module("gateway.control")):
            monkeypatch.setattr(module, "output", self.output)
        monkeypatch.setattr(self.module, "switch", self.switch)
        monkeypatch.setattr(self.module, "revert", self.revert)
        monkeypatch.setattr(self.module, "tell_old_workers", lambda: self.log.append("old workers"))
        monkeypatch.setattr(self.module, "serving_pools", lambda: self.serving)
        monkeypatch.setattr(self.module.probes, "attempt", self.attempt)

    def output(self, *arguments: str) -> str:
        self.log.append(" ".join(arguments[:3]) if "haproxy" not in arguments[0] else "valid?")
        if "haproxy" in arguments[0] and not self.valid:
            raise self.fault("[ALERT] no")
        return ""

    def switch(self, _: Any, generation: str) -> None:
        self.log.append(f"switch to {generation}")
        helper_module("system.commands").point(self.root / "current", generation)

    def revert(self, _: Any, old: str | None) -> str:
        self.log.append(f"revert to {old}")
        if old:
            helper_module("system.commands").point(self.root / "current", old)
        return f"Generation {old} serves again."

    def attempt(self, check: Callable[..., Any], *_: Any) -> dict[str, Any]:
        return {"ok": self.checks.get(check.__name__, True), "detail": "as told"}

    def document(self, name: str, **more: Any) -> dict[str, Any]:
        key = f"small key-of-{name[::-1]}\n"
        return {
            "folder": str(self.root), "units": "/units", "helper": "/helper", "generation": name,
            "files": {"haproxy.cfg": CONFIG.format(name), "upstream": key},
            "plan": {"pools": [POOL]}, **more,
        }  # fmt: skip

    def install(self, name: str) -> Any:
        return self.module.install(self.document(name))

    def folders(self) -> list[str]:
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.is_symlink())

    def current(self) -> str | None:
        found: str | None = self.setup.current(self.root)
        return found


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    found = Gateway(tmp_path, monkeypatch)
    found.install("one")
    found.log.clear()
    return found


def test_what_is_staged_is_beside_what_runs(gateway: Gateway) -> None:
    gateway.module.stage(gateway.document("two"))
    assert gateway.log == ["valid?"]
    assert (gateway.current(), gateway.folders()) == ("one", ["one", "two"])
    gateway.module.stage(gateway.document("three"))
    assert gateway.folders() == ["one", "three"]


def test_staging_mends_nothing_under_what_runs(gateway: Gateway) -> None:
    """If staging repaired an edited file, nobody would see any more that HAProxy has read it."""
    edited = gateway.root / "one" / "haproxy.cfg"
    edited.write_text("# by hand\n")
    gateway.module.stage(gateway.document("one"))
    assert (edited.read_text(), gateway.log) == ("# by hand\n", [])
    gateway.install("one")
    assert edited.read_text() == CONFIG.format("one")
    assert "switch to one" in gateway.log


def test_what_haproxy_refuses_leaves_nothing(gateway: Gateway) -> None:
    gateway.valid = False
    for ask in (gateway.module.stage, gateway.module.install):
        with pytest.raises(gateway.fault, match="ALERT"):
            ask(gateway.document("two"))
    assert gateway.log == ["valid?", "valid?"]
    assert (gateway.current(), gateway.folders()) == ("one", ["one"])


def test_a_switch_is_watched_before_it_begins_and_proved_before_it_ends(gateway: Gateway) -> None:
    rows = gateway.install("two")["rows"]
    assert [row["check"] for row in rows] == ["members", "models", "keys"]
    assert gateway.log == [
        "valid?", "systemd-run --quiet --collect", "switch to two", "old workers",
        "systemctl stop corral-gateway-proof:*.timer",
    ]  # fmt: skip
    assert (gateway.current(), gateway.folders()) == ("two", ["one", "two"])
    assert not (gateway.root / "unproved").exists()


@pytest.mark.parametrize("failing", ["members", "models", "keys"])
def test_a_generation_that_does_not_serve_its_aliases_is_taken_back(
    gateway: Gateway, failing: str
) -> None:
    gateway.checks = {failing: False}
    with pytest.raises(gateway.fault, match=f"{failing}: as told\nGeneration one serves again"):
        gateway.install("two")
    assert gateway.log[-2:] == ["revert to one", "systemctl stop corral-gateway-proof:*.timer"]
    assert (gateway.current(), gateway.folders()) == ("one", ["one"])


def test_an_alias_whose_servers_were_down_before_proves_nothing(gateway: Gateway) -> None:
    gateway.checks, gateway.serving = {"members": False}, set()
    assert gateway.install("two")["rows"] == []
    assert gateway.current() == "two"


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("at", ["watch", "switch", "proof"])
def test_a_kill_is_settled_by_the_timer_or_by_who_comes_next(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    real = getattr(gateway.module, at)

    def die(*_: Any) -> None:
        if at != "watch":
            gateway.switch(None, "two")
        raise Killed

    monkeypatch.setattr(gateway.module, at, die)
    with pytest.raises(Killed):
        gateway.install("two")
    monkeypatch.setattr(gateway.module, at, real)
    question = {"folder": str(gateway.root), "units": "/units"}
    assert (gateway.root / "unproved").exists()
    gateway.module.settle(question)
    assert (gateway.current(), gateway.folders()) == ("one", ["one"])
    assert gateway.module.settle(question) == {"settled": "already"}
    assert not (gateway.root / "unproved").exists()


def test_after_a_kill_the_next_switch_goes_back_to_what_was_proved(gateway: Gateway) -> None:
    (gateway.root / "unproved").write_text(json.dumps({"before": "one"}))
    gateway.module.write(gateway.root / "two", gateway.document("two")["files"])
    gateway.switch(None, "two")
    gateway.checks = {"models": False}
    with pytest.raises(gateway.fault, match="Generation one serves again"):
        gateway.install("three")
    assert (gateway.current(), gateway.folders()) == ("one", ["one"])


def test_servers_that_move_at_once_are_placed_one_after_the_other(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts of a wave do not know each other: their gateway must lose none of their changes."""
    names = ("a_chat", "b_chat", "c_chat")
    lines = "".join(f"  server {name} 10.0.0.1:8001 weight 100\n" for name in names)
    whole = gateway.document("whole")
    whole["files"]["haproxy.cfg"] = f"# whole\nbackend small\n{lines}"
    gateway.module.install(whole)
    switching, overlaps = threading.Lock(), []

    def switch(document: Any, generation: str) -> None:
        if not switching.acquire(blocking=False):
            overlaps.append(generation)
            return
        time.sleep(0.05)
        gateway.switch(document, generation)
        switching.release()

    def move(name: str) -> Any:
        line = {"pool": "small", "server": name, "place": "10.0.0.1:9001", "weight": "100"}
        return gateway.module.place(gateway.document("", server=name, lines=[line]))

    monkeypatch.setattr(gateway.module, "switch", switch)
    with ThreadPoolExecutor() as hosts:
        list(hosts.map(move, names))
    assert overlaps == []
    assert (gateway.root / "current" / "haproxy.cfg").read_text().count(":9001 ") == 3


def place(gateway: Gateway, *places: str) -> Any:
    lines = [
        {"pool": "small", "server": name, "place": where, "weight": "100"}
        for name, where in zip(("a_chat", "a_chat:next"), places, strict=False)
    ]
    return gateway.module.place(gateway.document("", server="a_chat", lines=lines))["generation"]


def test_a_server_that_moves_makes_a_generation_of_the_same_rest(gateway: Gateway) -> None:
    both = place(gateway, "10.0.0.1:8001", "10.0.0.1:9001")
    text = (gateway.root / both / "haproxy.cfg").read_text()
    assert text.startswith(f"# {both}\n")
    assert "server a_chat:next 10.0.0.1:9001" in text
    assert (gateway.root / both / "upstream").read_text() == "small key-of-eno\n"
    assert gateway.setup.digest(gateway.setup.unnamed(gateway.root / both)) == both
    new = place(gateway, "10.0.0.1:9001")
    gateway.log.clear()
    assert place(gateway, "10.0.0.1:9001") == new
    assert gateway.log == []
    assert gateway.folders() == [new]


def test_what_is_undone_leaves_servers_where_they_are(gateway: Gateway) -> None:
    gateway.install("two")
    moved = place(gateway, "10.0.0.1:9001")
    config = gateway.root / moved / "haproxy.cfg"
    config.write_text(config.read_text().replace("weight 100", "weight 7"))
    back = gateway.module.revert_change(gateway.document(""))["generation"]
    assert back not in ("one", "two", moved)
    assert (gateway.root / back / "upstream").read_text() == "small key-of-eno\n"
    assert "a_chat 10.0.0.1:9001 weight 100\n" in (gateway.root / back / "haproxy.cfg").read_text()


def test_where_nothing_was_changed_nothing_is_undone(gateway: Gateway) -> None:
    with pytest.raises(gateway.fault, match="has no previous generation"):
        gateway.module.revert_change(gateway.document(""))


@pytest.mark.parametrize(("found", "whole"), [("one", True), (None, False)])
def test_what_is_installed_is_told_by_digests(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, found: str | None, whole: bool
) -> None:
    """An edited or unproved generation counts as none in the state of a host."""
    state = {"installed": found, "running": "one", "upstream": {"small": "ab"}}
    monkeypatch.setattr(gateway.module, "gateway_state", lambda *_: state)
    reported = gateway.module.installed(
        {"folder": str(gateway.root), "units": "/units", "digest_key": "ab"}
    )
    assert (reported["generation"], reported["whole"], reported["running"]) == ("one", whole, "one")
    assert "key-of" not in json.dumps(reported)
    plain = hashlib.sha256((gateway.root / "one" / "upstream").read_bytes()).hexdigest()
    assert set(reported["files"]) == {"upstream"}
    assert reported["files"]["upstream"] != plain
    assert gateway.module.installed({"folder": str(gateway.root / "absent")}) == {
        "generation": None
    }
