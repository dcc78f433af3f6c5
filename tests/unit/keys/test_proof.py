"""Keys as `verify` compares them: store, host's file, running server, gateway; by digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.gateway.files import gateway_files
from corral.inventory.hosts import Host
from corral.keys.proof import check_document, digest
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.planning.gateways import instance_keys
from corral.store.api_keys import key_path, keys_in
from tests.samples import ROOT, planner
from tests.unit.gateway_samples import fleet, make_keys, plan
from tests.unit.helper_modules import helper_module

key_check, held_keys = helper_module("checks.keys"), helper_module("server.held_keys")
loaded_keys = helper_module("gateway.loaded_keys")
staged_keys = helper_module("server.staged_keys")
OTHER = "another-0123456789-abcdefghij"


class Played:
    """A host whose files are real, and what runs with them; HAProxy's answers are made up."""

    def __init__(self, folder: Path, hosts: list[Host]) -> None:
        self.folder, self.hosts = folder, hosts
        self.paths = HostPaths(keys=str(folder / "keys"), gateway=str(folder / "gateway"))
        self.plans = {"gw": plan(hosts).model_copy(update={"folder": self.paths.gateway})}
        self.loaded: dict[str, str] = {}
        self.haproxy: dict[str, dict[str, str]] = {}

    def plan(self, host: Host) -> HostPlan:
        found = planner(paths=self.paths).plan_host(host)
        return found.model_copy(update={"gateway": self.plans.get(host.name)})

    def deploy(self) -> None:
        """Put the store's keys of one and gw in place, and start everything with them."""
        gw = self.hosts[3]
        (self.folder / "keys").mkdir()
        for name in ("chat", "long"):
            text = self.text_of(name)
            self.write(name, text)
            self.loaded[f"corral-{name}.service"] = text
        made = gateway_files(
            gw, self.plans["gw"], paths=self.paths, templates=ROOT / "templates"
        ).files  # fmt: skip
        (self.folder / "gateway/ab12").mkdir(parents=True)
        (self.folder / "gateway/current").symlink_to("ab12")
        for name in ("clients-small", "upstream", "metrics"):
            (self.folder / "gateway/ab12" / name).write_text(made[name])
        self.reload()

    def reload(self) -> None:
        """HAProxy reads its files."""
        folder = self.folder / "gateway/ab12"
        self.haproxy = {"acl": {}, "map": {}}
        for kind, name in (("acl", "clients-small"), ("acl", "metrics"), ("map", "upstream")):
            self.haproxy[kind][str(folder / name)] = (folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        path = self.folder / "keys" / name
        path.write_text(text)
        path.chmod(0o600)

    def ask(self, command: str, _: str) -> str:
        """As HAProxy's runtime socket answers."""
        _, kind, *number = command.split()
        files = list(self.haproxy[kind].items())
        if not number:
            lines = [f"{n} ({path}) pattern loaded from file" for n, (path, _) in enumerate(files)]
            return "\n".join(["# id (file) description", *lines, "9 () acl 'path' line 16"])
        text = files[int(number[0].removeprefix("#"))][1]
        return "\n".join(f"0x55d0c0ffee {line}" for line in text.splitlines())

    def text_of(self, name: str) -> str:
        """What a deploy would put on the first host."""
        return instance_keys(self.hosts[0], name, self.hosts, self.plans).text

    def rows(self, number: int) -> list[dict[str, Any]]:
        """What a host answers."""
        host = self.hosts[number]
        document = check_document(host, self.plan(host), self.hosts, self.plans)
        return list(key_check.key_rows(json.loads(document)))

    def details(self, number: int) -> dict[tuple[str, str], str]:
        """(subject, check) -> detail of each row of a host."""
        return {(row["instance"], row["check"]): row["detail"] for row in self.rows(number)}

    def problems(self, number: int) -> dict[tuple[str, str], str]:
        """(subject, check) -> detail of each failed row of a host."""
        failed = [row for row in self.rows(number) if not row["ok"]]
        return {(row["instance"], row["check"]): row["detail"] for row in failed}


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    hosts = fleet(tmp_path / "store", metrics_port=8404)
    make_keys(hosts)
    made = Played(tmp_path, hosts)
    monkeypatch.setattr(key_check, "loaded", lambda one: made.loaded.get(one["unit"]))
    monkeypatch.setattr(loaded_keys, "ask", made.ask)
    return made


def store(played: Played, host: int, name: str, text: str) -> None:
    key_path(played.hosts[host], name).write_text(text)


def test_what_was_deployed_from_this_store_is_green(played: Played) -> None:
    played.deploy()
    assert played.problems(0) == {}
    assert played.problems(3) == {}


def test_green_from_one_store_is_red_from_another(played: Played) -> None:
    played.deploy()
    store(played, 0, "chat", f"{OTHER}\n")
    found = played.problems(0)
    assert set(found) == {("chat", "keys-stored")}
    assert "other keys than the store" in found[("chat", "keys-stored")]
    assert "`corral keys adopt one/chat --replace`" in found[("chat", "keys-stored")]


def test_a_controller_without_the_store_is_told_so(played: Played) -> None:
    played.deploy()
    key_path(played.hosts[0], "chat").unlink()
    key_path(played.hosts[3], "gateway-small").unlink()
    assert "`corral keys adopt one/chat`" in played.problems(0)[("chat", "keys-stored")]
    told = played.problems(3)[("gateway small", "keys-stored")]
    assert "`corral keys adopt gw/gateway-small`" in told
    assert not key_path(played.hosts[0], "chat").exists()


def test_without_the_gateways_key_a_servers_file_cannot_be_judged(played: Played) -> None:
    played.deploy()
    key_path(played.hosts[3], "upstream-small").unlink()
    assert ("chat", "keys-stored") in played.problems(0)


def test_a_file_that_was_edited_on_the_host_is_told_twice(played: Played) -> None:
    played.deploy()
    played.write("chat", f"{OTHER}\n")
    assert set(played.problems(0)) == {("chat", "keys-stored"), ("chat", "keys-loaded")}


def test_a_server_that_runs_with_old_keys_or_not_at_all_is_told(played: Played) -> None:
    played.deploy()
    played.loaded["corral-chat.service"] = f"{OTHER}\n"
    del played.loaded["corral-long.service"]
    found = played.problems(0)
    assert "started with other keys" in found[("chat", "keys-loaded")]
    assert "not running" in found[("long", "keys-loaded")]
    assert len(found) == 2


def test_keys_that_wait_for_their_activation_are_told_with_both_ways_on(played: Played) -> None:
    played.deploy()
    before = (played.folder / "keys/chat").read_text()
    store(played, 0, "chat", f"{OTHER}\n")
    staged_keys.write(played.folder / "keys/chat", played.text_of("chat"))
    told = played.problems(0)
    assert set(told) == {("chat", "keys-stored")}
    waits = played.folder / "keys/.staged/chat"
    for part in (f"whose keys wait in {waits}", "Next: deploy", "`corral keys adopt one/chat --"):
        assert part in told[("chat", "keys-stored")]
    assert (played.folder / "keys/chat").read_text() == before


def test_keys_of_another_store_that_wait_are_told_and_harm_nobody(played: Played) -> None:
    played.deploy()
    staged_keys.write(played.folder / "keys/chat", f"{OTHER}\n")
    assert played.problems(0) == {}
    detail = played.details(0)[("chat", "keys-stored")]
    assert f"others wait in {played.folder}/keys/.staged/chat" in detail
    staged_keys.forget(played.folder / "keys/chat")
    assert "wait" not in played.details(0)[("chat", "keys-stored")]


def test_a_file_that_others_can_read_or_that_is_gone_is_told(played: Played) -> None:
    played.deploy()
    (played.folder / "keys/chat").chmod(0o644)
    (played.folder / "keys/long").unlink()
    found = played.problems(0)
    assert "can be read by others" in found[("chat", "keys-stored")]
    assert "is not there" in found[("long", "keys-stored")]


@pytest.mark.parametrize("name", ["gateway-small", "upstream-small", "gateway_metrics"])
def test_each_key_of_a_gateway_is_compared_with_the_store(name: str, played: Played) -> None:
    played.deploy()
    store(played, 3, name, f"{OTHER}\n")
    found = played.problems(3)
    assert set(found) == {("gateway small", "keys-stored")}
    assert f"gateway: {name} has other keys" in found[("gateway small", "keys-stored")]


@pytest.mark.parametrize("name", ["clients-small", "upstream", "metrics"])
def test_what_haproxy_was_loaded_with_is_compared_with_its_files(name: str, played: Played) -> None:
    played.deploy()
    path = played.folder / "gateway/ab12" / name
    before = path.read_text()
    path.write_text(f"small {OTHER}\n" if name == "upstream" else f"{OTHER}\n")
    played.reload()
    path.write_text(before)
    found = played.problems(3)
    assert set(found) == {("gateway small", "keys-loaded")}
    assert f"other keys than its files: {name}. Next: " in found[("gateway small", "keys-loaded")]


def test_an_haproxy_that_does_not_answer_is_told(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: str) -> None:
        raise helper_module("system.commands").HostError("HAProxy does not answer")

    played.deploy()
    monkeypatch.setattr(loaded_keys, "ask", silent)
    assert "does not answer" in played.problems(3)[("gateway small", "keys-loaded")]


def test_neither_question_nor_answer_holds_a_key(played: Played) -> None:
    played.deploy()
    keys = {key for path in (played.folder / "store").rglob("*") if path.is_file()
            for key in keys_in(path.read_text())}  # fmt: skip
    texts = []
    for number in (0, 3):
        host = played.hosts[number]
        document = check_document(host, played.plan(host), played.hosts, played.plans)
        texts += [document, json.dumps(list(key_check.key_rows(json.loads(document))))]
    assert len(keys) == 8
    assert not [key for key in keys if key in "".join(texts)]


def test_no_two_questions_have_one_salt(played: Played) -> None:
    host = played.hosts[0]
    found: list[Any] = [
        json.loads(check_document(host, played.plan(host), played.hosts, played.plans))["keys"]
        for _ in range(2)
    ]
    assert found[0]["salt"] != found[1]["salt"]
    assert found[0]["digests"]["chat"] != found[1]["digests"]["chat"]


def test_both_sides_make_the_same_digest() -> None:
    assert digest("ab", "text\n") == key_check.digest("ab", "text\n")


def test_a_plan_without_digests_has_no_rows(played: Played) -> None:
    document = json.loads(played.plan(played.hosts[0]).to_helper())
    assert list(key_check.key_rows(document)) == []
