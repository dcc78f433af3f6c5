"""What old workers learn after a reload: which keys are revoked, and which servers take now."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

CLIENTS = ("acl", "clients-small", {"0xa1": "alice", "0xa2": "bob"})
UPSTREAM = ("map", "upstream", {"0xb1": "small its-key"})


class Worker:
    """Key files of a worker in the forms of HAProxy 2.6; notes its orders."""

    def __init__(self, generation: str, *files: tuple[str, str, dict[str, str]]) -> None:
        self.generation, self.files = generation, files
        self.orders: list[str] = []

    def ask(self, command: str) -> str:
        verb, kind, *rest = command.split()
        if verb != "show":
            self.orders.append(command)
            return ""
        own = [one for one in self.files if one[0] == kind]
        if rest:
            _, _, entries = own[int(rest[0].removeprefix("#"))]
            return "\n".join(f"{reference} {entry}" for reference, entry in entries.items())
        lines = [
            f"{number} (/etc/corral/gateway/{self.generation}/{name}) pattern loaded from file"
            for number, (_, name, _) in enumerate(own)
        ]
        return "\n".join(["# id (file) description", *lines])


def orders_to_old(
    monkeypatch: pytest.MonkeyPatch, current: Worker, old: Worker | None
) -> list[str]:
    """Orders to an old worker; ``old`` None: one that has ended."""
    module, fault = helper_module("gateway.loaded_keys"), helper_module("system.commands").HostError

    def ask(command: str, worker: str = "@1") -> Any:
        found = current if worker == "@1" else old
        if found is None:
            raise fault("HAProxy does not answer")
        return found.ask(command)

    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(module, "order", ask)
    monkeypatch.setattr(module, "workers", lambda: ["@1", "@!77"])
    module.tell_old_workers()
    assert current.orders == []
    return old.orders if old else []


def test_the_same_keys_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Worker("a", CLIENTS, UPSTREAM)
    assert orders_to_old(monkeypatch, Worker("b", CLIENTS, UPSTREAM), old) == []


def test_a_revoked_key_is_taken_from_an_old_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Worker("b", ("acl", "clients-small", {"0xc1": "bob", "0xc2": "carol"}), UPSTREAM)
    assert orders_to_old(monkeypatch, now, Worker("a", CLIENTS, UPSTREAM)) == ["del acl #0 #0xa1"]


def test_an_alias_that_is_gone_opens_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = orders_to_old(monkeypatch, Worker("b", UPSTREAM), Worker("a", CLIENTS, UPSTREAM))
    assert orders == ["del acl #0 #0xa1", "del acl #0 #0xa2"]


def test_servers_get_their_new_key_from_an_old_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Worker("b", CLIENTS, ("map", "upstream", {"0xd1": "small new-key"}))
    orders = orders_to_old(monkeypatch, now, Worker("a", CLIENTS, UPSTREAM))
    assert orders == ["set map #0 #0xb1 new-key"]


def test_a_worker_that_ended_meanwhile_needs_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    assert orders_to_old(monkeypatch, Worker("b", CLIENTS), None) == []


@pytest.mark.parametrize(
    "cut", [("acl", "clients-small", {"0xa1": ""}), ("map", "upstream", {"0xb1": "s"})]
)
def test_a_worker_that_ends_while_it_answers_needs_no_news(
    monkeypatch: pytest.MonkeyPatch, cut: tuple[str, str, dict[str, str]]
) -> None:
    assert orders_to_old(monkeypatch, Worker("b", CLIENTS, UPSTREAM), Worker("a", cut)) == []


def test_a_cut_answer_of_the_current_worker_is_a_fault_without_its_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = ("map", "upstream", {"0xb1": "secret"})
    with pytest.raises(helper_module("system.commands").HostError) as raised:
        orders_to_old(monkeypatch, Worker("b", cut), None)
    assert "is not whole" in str(raised.value)
    assert "secret" not in str(raised.value)
