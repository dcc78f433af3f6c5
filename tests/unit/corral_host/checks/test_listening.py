"""Where a server listens, and what it reports of slots and drafts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

check = helper_module("checks.unit_probes")
engines = helper_module("engines")
memory = helper_module("fit.memory")
probes = helper_module("checks.server_probes")
PLANNED, MAIN = ("10.0.0.1", 8001), 4242


@pytest.fixture
def listens(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the sockets of all processes of the unit; another program's are there as well."""
    monkeypatch.setitem(engines.ENGINES, "vllm", helper_module("engines.vllm").Vllm())

    def at(*ends: tuple[str, int]) -> None:
        mine = [(address, port, f"mine {number}") for number, (address, port) in enumerate(ends)]
        everyone = [*mine, ("0.0.0.0", 22, "of sshd")]
        monkeypatch.setattr(check, "main_pid", lambda _: MAIN)
        monkeypatch.setattr(check, "sockets", lambda _: everyone)
        monkeypatch.setattr(check, "sockets_of", lambda _: {inode for *_, inode in mine})

    return at


def instance(kind: str, socket: str | None = None) -> dict[str, Any]:
    address, port = (None, None) if socket else PLANNED
    end = {"socket": socket, "address": address, "port": port}
    return {"unit": "corral-chat.service", "kind": kind, "endpoint": end}


@pytest.mark.parametrize(
    ("kind", "ends", "fine"),
    [
        ("llama.cpp", [PLANNED], True),
        ("llama.cpp", [], False),
        ("llama.cpp", [PLANNED, ("127.0.0.1", 40001)], False),
        ("llama.cpp", [("0.0.0.0", 8001)], False),
        ("vllm", [PLANNED, ("127.0.0.1", 40001), ("127.0.0.1", 40002), ("::1", 9)], True),
        ("vllm", [("127.0.0.1", 40001)], False),
        ("vllm", [PLANNED, ("0.0.0.0", 40001)], False),
        ("vllm", [PLANNED, ("::", 40001)], False),
        ("vllm", [PLANNED, ("10.0.0.1", 40001)], False),
    ],
)
def test_every_process_of_the_unit_listens_where_it_may(
    listens: Any, kind: str, ends: list[tuple[str, int]], fine: bool
) -> None:
    listens(*ends)
    name, ok, detail = check.check_listening(instance(kind))
    assert (name, ok) == ("listening", fine), detail
    assert "planned ['10.0.0.1:8001']" in detail


def test_ports_of_its_own_are_counted_and_not_listed(listens: Any) -> None:
    listens(PLANNED, ("127.0.0.1", 40001), ("127.0.0.1", 40002))
    _, _, detail = check.check_listening(instance("vllm"))
    assert detail == "on 10.0.0.1:8001, 2 loopback ports of its own, planned ['10.0.0.1:8001']"


@pytest.mark.parametrize(("ends", "fine"), [([], True), ([("0.0.0.0", 9)], False)])
def test_a_socket_file_leaves_no_port_open(
    listens: Any, ends: list[tuple[str, int]], fine: bool
) -> None:
    listens(*ends)
    assert check.check_listening(instance("vllm", "/run/x.sock"))[1] is fine


@pytest.mark.parametrize(
    ("found", "ok", "figure"),
    [
        ((2, 4096), True, "2 slots of 4096 tokens"),
        ((3, 4096), False, "3 slots of 4096 tokens"),
        ((None, 4096), True, "slots of 4096 tokens"),
        ((None, 2048), False, "slots of 2048 tokens"),
        ((None, None), True, "not reported by this engine"),
    ],
)
def test_slots_are_compared_as_far_as_they_are_reported(
    monkeypatch: pytest.MonkeyPatch, found: Any, ok: bool, figure: str
) -> None:
    engine = type("Reports", (), {"slots": lambda *_: found})()
    monkeypatch.setattr(probes.engines, "of", lambda _: engine)
    row = probes.slots({"slots": 2, "context_tokens_per_slot": 4096})
    assert (row["ok"], row["figure"]) == (ok, figure)


@pytest.mark.parametrize(
    ("found", "figure"),
    [
        ((40, 30), "30 of 40 drafted tokens accepted (75%)"),
        ((0, 0), "nothing drafted since the start"),
        (None, "not reported by this engine"),
    ],
)
def test_accepted_drafts_are_shown_and_not_judged(
    monkeypatch: pytest.MonkeyPatch, found: Any, figure: str
) -> None:
    engine = type("Reports", (), {"drafts": lambda *_: found})()
    monkeypatch.setattr(probes.engines, "of", lambda _: engine)
    row = probes.drafts({})
    assert (row["ok"], row["figure"]) == (True, figure)


def test_memory_of_every_process_of_a_unit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = 2**22 + 1
    monkeypatch.setattr(memory, "processes_of", lambda _: {1, 2, ended})
    monkeypatch.setattr(memory, "held_by_process", lambda _: 300)
    assert memory.held_by_unit("corral-chat.service") == 600
