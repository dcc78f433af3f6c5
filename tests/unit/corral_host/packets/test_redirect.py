"""The network parts of a switch: packet rules, and draining."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

drain, redirect = helper_module("activation.drain"), helper_module("packets.redirect")
END = {"address": "127.0.0.1", "port": 8001, "socket": None}
SPARE = {**END, "port": 18001}
ONWARD = {"endpoint": END, "spare": SPARE, "zone": 7}


def at(address: str, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """A switch of a server at this address, which was at another one before."""
    end, spare = {**END, "address": address}, {**SPARE, "address": address}
    return {**ONWARD, "endpoint": end, "before": before or end, "spare": spare}


def rules(*arguments: Any, **options: Any) -> list[str]:
    lines = redirect.text("chat", *arguments, **options).splitlines()
    return [line.removeprefix("add rule inet corral_chat ") for line in lines if "rule" in line]


def test_connections_are_followed_before_anything_changes_their_addresses() -> None:
    text = redirect.text("chat", ONWARD, redirect.FOLLOW)
    assert "ct zone set 7" in text
    assert "nat" not in text


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("127.0.0.1", "ip daddr 127.0.0.1 tcp dport 8001 dnat ip to 127.0.0.1:18001"),
        ("::1", "ip6 daddr ::1 tcp dport 8001 dnat ip6 to [::1]:18001"),
        ("0.0.0.0", "fib daddr type local tcp dport 8001 redirect to :18001"),
        ("::", "fib daddr type local tcp dport 8001 redirect to :18001"),
    ],
)
def test_new_connections_go_on_and_the_helpers_own_pass(address: str, wanted: str) -> None:
    onward = at(address)
    found = rules(onward, redirect.SEND_ON)
    for chain in ("arriving", "leaving"):
        mine = [rule.removeprefix(f"{chain} ") for rule in found if rule.startswith(chain)]
        assert mine == [redirect.OURS, f"{redirect.FIRST_PACKET} {wanted}"]


def test_who_comes_to_where_it_was_is_sent_on_as_well() -> None:
    moved = {**ONWARD, "before": {**END, "port": 8000}}
    way = "ip daddr 127.0.0.1 tcp dport 8000 dnat ip to 127.0.0.1:18001"
    assert rules(moved, redirect.SEND_ON)[-1] == f"leaving {redirect.FIRST_PACKET} {way}"
    followed = [rule for rule in rules(moved, redirect.FOLLOW) if rule.startswith("from_here")]
    assert followed == [
        "from_here tcp dport 8001 ct zone set 7", "from_here tcp dport 8000 ct zone set 7",
        "from_here tcp sport { 8001, 8000, 18001 } ct zone set 7",
    ]  # fmt: skip


# Old and new address -> the redirecting rule, or why that is impossible.
ADDRESSES = {
    ("10.0.0.1", "0.0.0.0"): "ip daddr 10.0.0.1 tcp dport 8001 dnat ip to 10.0.0.1:18001",
    ("0.0.0.0", "10.0.0.1"):
        "meta nfproto ipv4 fib daddr type local tcp dport 8001 dnat ip to 10.0.0.1:18001",
    ("127.0.0.1", "10.0.0.1"): "ip daddr 127.0.0.1 tcp dport 8001 dnat ip to 10.0.0.1:18001",
    ("fd00::1", "fd00::2"): "ip6 daddr fd00::1 tcp dport 8001 dnat ip6 to [fd00::2]:18001",
    ("::", "fd00::2"):
        "meta nfproto ipv6 fib daddr type local tcp dport 8001 dnat ip6 to [fd00::2]:18001",
    ("127.0.0.2", "127.0.0.1"): "ip daddr 127.0.0.2 tcp dport 8001 dnat ip to 127.0.0.1:18001",
    ("10.0.0.1", "127.0.0.1"): "clients of 10.0.0.1 cannot be redirected to 127.0.0.1",
    ("0.0.0.0", "127.0.0.1"): "clients of 0.0.0.0 cannot be redirected to 127.0.0.1",
    ("::", "10.0.0.1"): "clients of :: cannot be redirected to 10.0.0.1",
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), ADDRESSES)
def test_clients_of_another_address_are_sent_on_where_the_kernel_does_it(
    before: str, after: str
) -> None:
    onward = at(after, {**END, "address": before})
    if why := redirect.out_of_reach(onward["before"], onward["spare"]):
        assert why == ADDRESSES[before, after]
        return
    found = rules(onward, redirect.SEND_ON)
    assert found[-1] == f"leaving {redirect.FIRST_PACKET} {ADDRESSES[before, after]}"
    if os.getuid() == 0:
        text = redirect.text("chat", onward, redirect.SEND_ON)
        assert redirect.ask(text, "--check").stderr == ""


def test_what_was_sent_on_is_let_go_without_losing_its_rule() -> None:
    found = [rule for rule in rules(ONWARD, redirect.LET_GO) if rule.startswith("leaving")]
    assert found[1] == "leaving accept"
    assert "dnat" in found[2]


def test_no_new_requests_means_no_connection_and_no_data_on_kept_ones() -> None:
    found = rules(refused=(8001,), kept=(8001,))
    assert found[0] == f"delivered {redirect.OURS}"
    assert [rule.rpartition("reject")[0].split()[-3:] for rule in found[1:]] == [
        ["tcp", "dport", "8001"], ["psh", "==", "psh"],
    ]  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="only root may ask the kernel")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_the_kernel_takes_the_rules(address: str) -> None:
    onward = at(address)
    for stage in (redirect.FOLLOW, redirect.SEND_ON, redirect.LET_GO):
        text = redirect.text("0-a.b", onward, stage, refused=(8001,), kept=(8001,))
        assert redirect.ask(text, "--check").stderr == ""
    assert redirect.unusable("chat") is None


def test_without_nft_rules_are_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redirect.shutil, "which", lambda _: None)
    assert redirect.unusable("chat") == "nft is not installed"


ROWS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11
   1: 0100007F:1F41 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 12
   2: 0100007F:1F41 0100007F:9C41 01 00000000:00000010 00:00000000 00000000     0        0 13
   3: 0100007F:1F41 0100007F:9C42 06 00000000:00000000 00:00000000 00000000     0        0 0
   4: 0100007F:1F41 0100007F:9C43 03 00000000:00000000 00:00000000 00000000     0        0 0
   5: 0100007F:9C40 0100007F:1F41 01 00000000:00000000 00:00000000 00000000     0        0 14
"""


def test_connections_to_a_port_are_counted_with_what_waits_in_them() -> None:
    rows = [line.split() for line in ROWS.splitlines()[1:]]
    assert drain.established(rows, 8001) == [False, True, False]


def drained(monkeypatch: pytest.MonkeyPatch, looks: list[tuple[int, int]], **more: Any) -> int:
    """Result of a drain of 2 seconds, by a clock that each pause advances."""
    now, left = [0.0], iter([*looks, *[looks[-1]] * 99])
    monkeypatch.setattr(drain, "in_flight", lambda _: next(left))
    monkeypatch.setattr(drain.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(drain.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    found: int = drain.drain({}, 2, **more)
    monkeypatch.undo()
    drained.seconds = now[0]  # type: ignore[attr-defined]
    return found


def seconds() -> float:
    taken: float = drained.seconds  # type: ignore[attr-defined]
    return taken


def test_a_drain_ends_with_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, [(2, 2), (1, 1), (0, 0)]) == 0
    assert seconds() == 0.5
    assert drained(monkeypatch, [(2, 1), (2, 0), (2, 1), (2, 0)]) == 0
    assert seconds() == 1.25
    assert drained(monkeypatch, [(2, 1)]) == 1
    assert seconds() == 2


def test_where_both_serve_idle_connections_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[float] = []
    assert drained(monkeypatch, [(2, 0)], close_kept=lambda: closed.append(1)) == 0
    assert seconds() == 2
    assert len(closed) == 4


def test_what_the_server_says_of_itself_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "/metrics": "# x\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n",
        "/slots": json.dumps([{"is_processing": True}, {"is_processing": False}, {"state": 1}]),
    }
    monkeypatch.setattr(drain, "loaded_key", lambda _: "key")
    monkeypatch.setattr(drain, "call", lambda _, __, path, **___: (200, said[path]))
    assert drain.processing({"metrics": True}) == 5
    assert drain.processing({"metrics": False}) == 2
    monkeypatch.setattr(drain, "call", lambda *_, **__: (501, "no"))
    assert drain.processing({"metrics": True}) is None


def test_a_server_is_asked_with_the_key_that_it_read_not_with_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = helper_module("server.http")
    key = tmp_path / "key"
    key.write_text("new\n")
    instance = {"unit": "corral-chat.service", "key_path": str(key)}
    monkeypatch.setattr(server, "loaded", lambda _: None)
    assert server.loaded_key(instance) == "new"
    monkeypatch.setattr(server, "loaded", lambda _: "# old\nold\n")
    assert server.loaded_key(instance) == "old"
    asked: list[str] = []

    def call(*_: object, key: str, **__: object) -> tuple[int, str]:
        asked.append(key)
        return 200, "[]"

    monkeypatch.setattr(drain, "call", call)
    assert drain.processing({**instance, "metrics": False}) == 0
    assert asked == ["old"]


def test_one_who_cannot_tell_is_busy_with_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "show", lambda *_: {"MainPID": "1"})
    monkeypatch.setattr(drain, "connections", lambda *_: [False, True])
    monkeypatch.setattr(drain, "processing", lambda _: None)
    assert drain.in_flight({"unit": "u", "endpoint": END}) == (2, 2)
    monkeypatch.setattr(drain, "processing", lambda _: 0)
    assert drain.in_flight({"unit": "u", "endpoint": END}) == (2, 1)
