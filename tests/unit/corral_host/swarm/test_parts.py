"""Parts of a swarm: torrents, settings, what other members say, who is answered, packet rules."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ports import free_ports
from tests.unit.helper_modules import helper_module

pieces, settings = helper_module("swarm.pieces"), helper_module("swarm.settings")
board, service = helper_module("swarm.board"), helper_module("swarm.service")
table, fence = helper_module("swarm.table"), helper_module("swarm.fence")
jobs, member = helper_module("jobs"), helper_module("swarm.member")
HostError = helper_module("system.commands").HostError

MIB = 1024**2
DIGEST = "ab" * 32
SWARM: dict[str, Any] = {
    "name": "a", "expected": ["b", "gone"], "from_hub": 1, "upload_bytes_per_second": 0,
    "upload_seconds": 60, "connections": 40,
    "peers": [
        {"name": "a", "address": "127.0.0.1", "port": 6880},
        {"name": "b", "address": "127.0.0.2", "port": 6890},
    ],
}  # fmt: skip


def changed(**fields: Any) -> dict[str, Any]:
    return {**SWARM, **fields}


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(1, 256 * 1024), (256 * MIB, MIB // 2), (8192 * MIB, 16 * MIB), (500_000 * MIB, 16 * MIB)],
)
def test_pieces_have_16_mib_from_8_gib_on(size_bytes: int, expected: int) -> None:
    assert pieces.piece_bytes(size_bytes) == expected


@pytest.mark.parametrize("size_bytes", [1, 256 * 1024, 256 * 1024 + 1, 700_000])
def test_a_file_is_read_once_for_both_kinds_of_digests(tmp_path: Path, size_bytes: int) -> None:
    content = bytes(range(256)) * 3000
    (tmp_path / "f").write_bytes(content[:size_bytes])
    whole, digests = pieces.read(tmp_path / "f", size_bytes)
    assert whole == hashlib.sha256(content[:size_bytes]).hexdigest()
    parts = [content[n : min(n + 262144, size_bytes)] for n in range(0, size_bytes, 262144)]
    assert digests == "".join(hashlib.sha1(part).hexdigest() for part in parts)  # noqa: S324
    assert pieces.is_pieces(digests, size_bytes)
    assert not pieces.is_pieces(digests, size_bytes + 262144)
    assert not pieces.is_pieces(digests[:-1] + "Z", size_bytes)


def test_a_torrent_names_one_file_and_is_private() -> None:
    file = SimpleNamespace(sha256=DIGEST, size_bytes=5)
    text = pieces.torrent(file, "00" * 20, "http://10.0.0.1:6880/announce")
    assert text == (
        b"d8:announce29:http://10.0.0.1:6880/announce4:infod6:lengthi5e4:name64:"
        + DIGEST.encode()
        + b"12:piece lengthi262144e6:pieces20:"
        + bytes(20)
        + b"7:privatei1eee"
    )


def test_kept_digests_of_another_size_do_not_count(tmp_path: Path) -> None:
    shard = {"sha256": DIGEST, "size_bytes": 5}
    pieces.keep(shard, tmp_path, "00" * 20)
    assert pieces.kept(shard, tmp_path) == "00" * 20
    assert pieces.kept({**shard, "size_bytes": 10**6}, tmp_path) is None
    pieces.pieces_file(shard, tmp_path).write_text("[]")
    assert pieces.kept(shard, tmp_path) is None


@dataclass
class File:
    """A file of weights whose hub is this host's own disk."""

    path: Path
    sha256: str = DIGEST
    size_bytes: int = 5
    from_hub: bool = True
    is_readable: bool = True
    arrived: bool = False

    @property
    def staged(self) -> Path:
        return self.path

    def is_whole(self) -> bool:
        return self.arrived

    def pieces(self) -> str:
        return ""

    def keep_pieces(self, _: str) -> None:
        pass

    def fetch(self, digest_of: Callable[[Path, object], str]) -> None:
        digest_of(self.path, None)
        self.arrived = True


def adding() -> tuple[list[File], SimpleNamespace]:
    """What a seeder was given, and that seeder."""
    added: list[File] = []
    unit = SimpleNamespace(lent=None)
    return added, SimpleNamespace(unit=unit, add=lambda file, *_, **__: added.append(file))


def test_of_two_names_the_one_that_has_arrived_is_served(tmp_path: Path) -> None:
    names = [File(tmp_path / "first"), File(tmp_path / "twin")]
    names[0].path.write_bytes(b"bytes")
    added, seeder = adding()
    others = SimpleNamespace(
        ask_all=lambda: None, living=lambda: {"b": SimpleNamespace(shards={DIGEST: ("wanted", 5)})}
    )
    one = member.Member(settings.settings_of(SWARM), [], names, others, table.Table(), seeder)
    one.alone.add(DIGEST)
    one.bring(names[:1])
    one.offer_wanted()
    assert added == names[:1]


@pytest.mark.parametrize("is_held", [True, False])
def test_what_others_miss_by_the_plan_is_served_before_one_of_them_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_held: bool
) -> None:
    file = File(tmp_path / "w")
    file.arrived = True
    monkeypatch.setattr(file, "pieces", lambda: "00")
    added, seeder = adding()
    silent = SimpleNamespace(living=dict)
    held, wanted = ([file], []) if is_held else ([], [file])
    of_a = settings.settings_of(SWARM)
    member.Member(of_a, held, wanted, silent, table.Table(), seeder).offer_wanted()
    assert added == held


@pytest.mark.parametrize(("from_hub", "fetches"), [(1, False), (2, True)])
def test_as_many_hosts_ask_the_hub_at_once_as_the_uplink_bears(
    tmp_path: Path, from_hub: int, fetches: bool
) -> None:
    of_b = settings.settings_of(changed(name="b", from_hub=from_hub))
    others = board.Board(of_b)
    others._seen["a"] = board.seen_in(
        json.dumps(
            {"settled": False, "shards": {"cd" * 32: ["fetching", 1], DIGEST: ["wanted", 0]}}
        )
    )
    seeder = SimpleNamespace(unit=SimpleNamespace(lent=None))
    one = member.Member(of_b, [], [File(tmp_path / "w")], others, table.Table(), seeder)
    assert one.is_fetcher(DIGEST) is fetches


def test_settings_name_the_members_of_this_run() -> None:
    found = settings.settings_of(SWARM)
    assert (found.me.name, found.me.data_port) == ("a", 6881)
    assert [peer.name for peer in found.others] == ["b"]
    assert found.expected == ("b",)
    assert found.addresses == {"127.0.0.1", "127.0.0.2"}


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        changed(name="c"),
        changed(connections=-1),
        changed(upload_seconds=True),
        changed(from_hub="1"),
        changed(peers=[*SWARM["peers"], SWARM["peers"][0]]),
        changed(peers=[{"name": "a", "address": "a.example", "port": 1}]),
        changed(peers=[{"name": "a", "address": "10.0.0.1", "port": 65535}]),
        changed(peers=[{"name": "a b", "address": "10.0.0.1", "port": 1}]),
    ],
)
def test_settings_of_another_shape_are_refused(document: Any) -> None:
    with pytest.raises(HostError):
        settings.settings_of(document)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"settled": true}', '{"settled": 1, "shards": []}', "[" * 100_000,
     json.dumps({"settled": True, "shards": {DIGEST: 5}})],
)  # fmt: skip
def test_an_answer_of_another_shape_is_none(text: str) -> None:
    assert board.seen_in(text) is None


def test_what_an_answer_says_is_checked_entry_by_entry() -> None:
    shards = {
        DIGEST: ["whole", 7], "x": ["whole", 7], "cd" * 32: ["mine", 7], "ef" * 32: ["whole", -1],
        "01" * 32: ["whole", True],
    }  # fmt: skip
    found = board.seen_in(json.dumps({"settled": True, "shards": shards}))
    assert found.shards == {DIGEST: ("whole", 7)}


@pytest.fixture
def running() -> Iterator[Any]:
    (port,) = free_ports(1, in_a_row=2)
    mine = {"name": "a", "address": "127.0.0.1", "port": port}
    found = settings.settings_of(changed(peers=[mine, SWARM["peers"][1]]))
    one = service.Service(found, table.Table(), board.Board(found))
    try:
        yield one
    finally:
        one.stop()


def asked_from(address: str, running: Any, path: str) -> bytes:
    port = running.settings.me.port
    with socket.create_connection(
        ("127.0.0.1", port), timeout=5, source_address=(address, 0)
    ) as one:
        one.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        try:
            return one.recv(4096)
        except ConnectionError:
            return b""


def test_strangers_get_no_answer_and_members_do(running: Any) -> None:
    assert b"200" in asked_from("127.0.0.2", running, "/table/b")
    assert asked_from("127.0.0.3", running, "/table/b") == b""
    assert asked_from("127.0.0.3", running, "/announce") == b""


def test_the_tracker_answers_its_own_host_alone(running: Any) -> None:
    assert b"200" in asked_from("127.0.0.1", running, "/announce?info_hash=x")
    assert b"404" in asked_from("127.0.0.2", running, "/announce?info_hash=x")


@pytest.mark.parametrize("path", ["/", "/pieces/../../etc/passwd", "/pieces/", "/etc/passwd"])
def test_no_file_is_served(running: Any, path: str) -> None:
    assert b"404" in asked_from("127.0.0.2", running, path)


def test_packets_to_both_ports_come_from_members_alone() -> None:
    text = fence.rules(settings.settings_of(SWARM))
    assert "tcp dport != { 6880, 6881 } accept" in text
    assert "ip saddr { 127.0.0.1, 127.0.0.2 } ip daddr 127.0.0.1 accept" in text
    six = [{"name": "a", "address": "fd00::1", "port": 6880}, SWARM["peers"][1]]
    assert "ip6 saddr { fd00::1 } ip6 daddr fd00::1 accept" in fence.rules(
        settings.settings_of(changed(peers=six))
    )


def test_a_host_without_nftables_has_no_swarm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="nft is not installed"):
        fence.put_up(settings.settings_of(SWARM))


def test_the_same_shards_are_the_same_work_whoever_takes_part() -> None:
    one = {"kind": "swarm", "spec": {"shards": [1], "swarm": {"expected": ["b"]}}}
    other = {"kind": "swarm", "spec": {"shards": [1], "swarm": {"expected": []}}}
    assert jobs.work_of(one) == jobs.work_of(other)
    assert jobs.work_of(one) != jobs.work_of({**other, "spec": {"shards": [2]}})
    assert jobs.work_of({"kind": "fetch", "spec": {"shards": [1]}}) != jobs.work_of(one)
    shares = [{"kind": "share", "spec": {"archives": [1], "held": held}} for held in ([], [2])]
    assert jobs.work_of(shares[0]) == jobs.work_of(shares[1]) != jobs.work_of(one)
