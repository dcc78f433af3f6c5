"""`corral keys show|add|revoke|rotate`: clients by name, and two keys while one is replaced."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli, key_changes, keys
from corral.cli.select import Inventories
from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys import changes
from corral.keys.changes import Subject
from corral.paths import HostPaths, default_keys_journal
from corral.planning.gateways import gateways, instance_keys
from corral.store.api_keys import entries_of, find_keys, keep_keys, key_path, keys_in
from corral.store.entries import KeyEntry, read_entries
from corral.store.gateway_keys import GRAFANA
from tests.samples import catalog
from tests.unit.gateway_samples import fleet, make_keys, plan

CLIENTS, GATEWAY = "gateway-small", ("--gateway", "small")


@dataclass
class Site:
    """A fleet with all keys; ``rolled_out``: what was asked of `corral rollout`."""

    hosts: list[Host]
    rolled_out: list[list[str]] = field(default_factory=list)
    exit_code: int = 0

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(cli, ["keys", *words])

    def roll_out(self, words: list[str]) -> int:
        self.rolled_out.append(words)
        return self.exit_code

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def entries(self, host: str, name: str) -> tuple[KeyEntry, ...]:
        return entries_of(self.host(host), name)

    def journal(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in default_keys_journal().read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Site(fleet(tmp_path / "store"))
    make_keys(made.hosts)
    read = Inventory(path=Path("inventories/i.py"), hosts=tuple(made.hosts))
    monkeypatch.setattr(key_changes, "inventories", lambda _: Inventories((read,)))
    monkeypatch.setattr(key_changes, "roll_out", made.roll_out)
    return made


def refusal(result: Result) -> CorralError:
    assert isinstance(result.exception, CorralError), result.output
    return result.exception


def test_a_client_is_let_in_shown_and_shut_out(site: Site) -> None:
    before = keys_in(key_path(site.host("gw"), CLIENTS).read_text())
    done = site("add", *GATEWAY, "--client", "alice", "-y")
    assert done.exit_code == 0, done.output
    limit = ["inventories/i.py", "--limit", "gw", "-y"]
    assert site.rolled_out == [limit]
    first, alice = site.entries("gw", CLIENTS)
    assert (first.client, alice.client) == ("", "alice")
    assert alice.key not in done.output
    assert stat.S_IMODE(key_path(site.host("gw"), CLIENTS).stat().st_mode) == 0o600
    assert site("show", *GATEWAY, "--client", "alice").output == f"{alice.key}\n"
    listed = site("show", *GATEWAY).output
    assert "alice" in listed
    assert alice.fingerprint in listed
    assert alice.key not in listed
    stored = find_keys(site.host("gw"), CLIENTS)
    assert stored
    assert stored.text == f"{before[0]}\n{alice.key}\n"
    done = site("revoke", *GATEWAY, "--client", "alice", "-y")
    assert done.exit_code == 0, done.output
    assert site.rolled_out == [limit, limit]
    assert keys_in(key_path(site.host("gw"), CLIENTS).read_text()) == before
    journal = site.journal()
    assert [line["what"] for line in journal] == ["add", "revoke"]
    assert {line["client"] for line in journal} == {"alice"}
    assert {line["keys"] for line in journal} == {f"gw/{CLIENTS}"}
    assert [line["fingerprints"] for line in journal] == [[alice.fingerprint]] * 2
    assert alice.key not in default_keys_journal().read_text()
    assert all(line["at"] and line["by"] for line in journal)


def test_the_list_is_json_without_keys(site: Site) -> None:
    site("add", *GATEWAY, "--client", "alice", "--store-only")
    rows = json.loads(site("show", *GATEWAY, "--json").output)
    assert [row["client"] for row in rows] == ["", "alice"]
    assert {*rows[0]} == {"keys", "client", "fingerprint", "made", "replaced"}


def test_the_store_alone_is_changed_where_it_is_asked_for(site: Site) -> None:
    done = site("add", *GATEWAY, "--client", "alice", "--store-only")
    assert site.rolled_out == []
    assert "Next, for the hosts to know it: `corral rollout inventories/i.py --limit gw`" in (
        done.output
    )


def test_nothing_is_changed_where_nobody_can_be_asked(site: Site) -> None:
    for words in (("add", *GATEWAY, "--client", "alice"), ("rotate", "one/chat")):
        assert "there is no terminal" in refusal(site(*words)).what
    assert len(site.entries("gw", CLIENTS)) == len(site.entries("one", "chat")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", *GATEWAY, "--client", "a b"), "no name of a client"),
        (("add", "--gateway", "smal", "--client", "a"), 'did you mean "small"'),
        (("revoke", *GATEWAY, "--client", "bob"), "has no key there"),
        (("rotate", *GATEWAY, "--client", "bob"), "has no key of client bob"),
        (("rotate",), "needs either names or --gateway"),
        (("rotate", "one/cht"), "no such instance"),
        (("show", *GATEWAY, "--client", "bob"), "has no key there"),
    ],
)
def test_a_name_that_is_none_is_one_message(site: Site, words: tuple[str, ...], said: str) -> None:
    more = () if words[0] == "show" else ("-y",)
    assert said in refusal(site(*words, *more)).what
    assert site.rolled_out == []


def test_a_client_is_not_let_in_twice_and_the_last_key_is_not_removed(site: Site) -> None:
    site("add", *GATEWAY, "--client", "alice", "--store-only")
    again = refusal(site("add", *GATEWAY, "--client", "alice", "--store-only"))
    assert "has a key of client alice already" in again.what
    path = key_path(site.host("gw"), CLIENTS)
    alice = site.entries("gw", CLIENTS)[1]
    path.write_text("\n".join(alice.lines) + "\n")
    last = refusal(site("revoke", *GATEWAY, "--client", "alice", "--store-only"))
    assert "would have no key left" in last.what
    assert site.entries("gw", CLIENTS) == (alice,)


def test_both_keys_are_accepted_until_the_rotation_is_finished(site: Site) -> None:
    (old,) = site.entries("one", "chat")
    done = site("rotate", "one/chat", "-y")
    assert done.exit_code == 0, done.output
    assert "then `corral keys rotate one/chat --finish`" in done.output
    new, kept = site.entries("one", "chat")
    assert (kept.key, bool(kept.replaced), bool(new.made)) == (old.key, True, True)
    stored = find_keys(site.host("one"), "chat")
    assert stored
    assert keys_in(stored.text) == [new.key, old.key]
    # Corral's own requests send the first.
    assert stored.first == new.key
    # As after a rollout that failed: hosts may not have the new key yet.
    again = site("rotate", "one/chat", "-y")
    assert f"in the store since {kept.replaced}; the old one stays accepted" in again.output
    assert "then `corral keys rotate one/chat --finish`" in again.output
    assert site.entries("one", "chat") == (new, kept)
    done = site("rotate", "one/chat", "--finish", "-y")
    assert done.exit_code == 0, done.output
    assert [entry.key for entry in site.entries("one", "chat")] == [new.key]
    assert [line[:3] for line in site.rolled_out] == [["inventories/i.py", "--limit", "one"]] * 3
    assert [line["what"] for line in site.journal()] == ["rotate", "finish"]
    text = default_keys_journal().read_text()
    assert old.key not in text
    assert new.key not in text


def test_a_rotation_that_hosts_refuse_says_how_to_go_on(site: Site) -> None:
    site.exit_code = 10
    error = refusal(site("rotate", "one/chat", "-y"))
    assert "exit code 10" in error.what
    assert "`corral rollout inventories/i.py --limit one`" in error.next_step


def test_one_client_of_an_alias_is_rotated_alone(site: Site) -> None:
    site("add", *GATEWAY, "--client", "alice", "--store-only")
    first, alice = site.entries("gw", CLIENTS)
    done = site("rotate", *GATEWAY, "--client", "alice", "-y")
    assert done.exit_code == 0, done.output
    new, *rest = site.entries("gw", CLIENTS)
    assert new.client == "alice"
    assert site("show", *GATEWAY, "--client", "alice").output == f"{new.key}\n"
    assert [entry.key for entry in rest] == [first.key, alice.key]
    assert "corral keys rotate --gateway small --client alice --finish" in done.output
    assert site("rotate", *GATEWAY, "--client", "alice", "--finish", "-y").exit_code == 0
    assert {entry.key for entry in site.entries("gw", CLIENTS)} == {new.key, first.key}


def test_the_key_that_a_gateway_sends_is_replaced_in_two_rollouts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = site.entries("gw", "upstream-small")
    plans = gateways(site.hosts, catalog(), HostPaths())
    accepted: list[list[str]] = []
    real = site.roll_out

    def roll_out(words: list[str]) -> int:
        keys = instance_keys(site.host("one"), "chat", site.hosts, plans)
        accepted.append(keys_in(keys.text)[1:])
        return real(words)

    monkeypatch.setattr(key_changes, "roll_out", roll_out)
    done = site("rotate", "gw/upstream-small", "-y")
    assert done.exit_code == 0, done.output
    (new,) = site.entries("gw", "upstream-small")
    assert accepted == [[new.key, old.key], [new.key]]
    assert all(f"--limit {name}".split()[1] in site.rolled_out[0] for name in ("one", "two", "gw"))


def test_two_gateways_of_an_alias_have_the_same_new_key_even_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = fleet(tmp_path / "store")
    make_keys(hosts)
    text = key_path(hosts[3], CLIENTS).read_text()
    other = hosts[3].model_copy(update={"name": "gw2"})
    key_path(other, CLIENTS).parent.mkdir()
    key_path(other, CLIENTS).write_text(text)
    subjects = [Subject(host=host, name=CLIENTS) for host in (hosts[3], other)]
    changes.begin(subjects[:1])
    changes.begin(subjects)
    first, second = (entries_of(s.host, s.name) for s in subjects)
    assert [entry.key for entry in first] == [entry.key for entry in second]
    assert changes.begin(subjects) == first[-1].replaced
    assert entries_of(other, CLIENTS) == second
    assert changes.finish(subjects)
    assert len({entries_of(s.host, s.name)[0].key for s in subjects}) == 1


def test_a_file_keeps_the_comments_of_its_operator(site: Site) -> None:
    path = key_path(site.host("gw"), CLIENTS)
    key = keys_in(path.read_text())[0]
    other = "k" * 24
    text = f"# Keys of ours.\n{key}\n# ask Bob\n# key of client bob\n{other}\n# the end\n"
    path.write_text(text)
    assert read_entries(text).text == text
    site("rotate", *GATEWAY, "--client", "bob", "--store-only")
    lines = path.read_text().splitlines()
    assert lines[0] == "# Keys of ours."
    assert lines[-1] == "# the end"
    assert lines[-4] == "# ask Bob"
    assert lines[-3].startswith("# key of client bob, replaced 20")
    assert [entry.client for entry in site.entries("gw", CLIENTS)] == ["bob", "", "bob"]


def test_plans_of_samples_have_a_pool(site: Site) -> None:
    assert plan(site.hosts).pools[0].name == "small"


@pytest.fixture
def watcher(site: Site, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with monitoring, a password and a secret of a receiver, which is short."""
    found = site.host("one")
    data = {**found.data, "monitoring": {"prometheus": {}, "grafana": {}}}
    made = found.model_copy(update={"data": data})
    hosts = [made if host is found else host for host in site.hosts]
    read = Inventory(path=Path("inventories/i.py"), hosts=tuple(hosts))
    for module in (key_changes, keys):
        monkeypatch.setattr(module, "inventories", lambda _: Inventories((read,)))
    keep_keys(made, GRAFANA, ["p" * 30])
    key_path(made, "alerts_ops").write_text("short")
    return made


def test_secrets_of_monitoring_are_shown_by_name_and_a_short_one_by_no_digest(
    site: Site, watcher: Host
) -> None:
    done = site("show", "one/grafana_admin", "one/alerts_ops", "--json")
    password, secret = json.loads(done.output)
    assert (password["keys"], len(password["fingerprint"])) == ("one/grafana_admin", 12)
    assert (secret["keys"], secret["fingerprint"]) == ("one/alerts_ops", "")
    assert "short" not in done.output
    assert key_path(watcher, "alerts_ops").read_text() == "short"


@pytest.mark.parametrize(
    ("words", "what", "step"),
    [
        (("new", "one/alerts_ops"), "its receiver of alerts gave out", "install -D -m 600"),
        (("rotate", "one/alerts_ops", "-y"), "its receiver of alerts gave out", "install -D"),
        (("rotate", "one/grafana_admin", "-y"), "Grafana accepts one", "corral keys new one/graf"),
    ],
)
@pytest.mark.usefixtures("watcher")
def test_what_others_make_and_what_is_single_says_how_it_is_replaced(
    site: Site, words: tuple[str, ...], what: str, step: str
) -> None:
    error = refusal(site(*words))
    assert what in error.what
    assert step in error.next_step


@pytest.mark.parametrize("word", ["new", "show"])
@pytest.mark.usefixtures("watcher")
def test_a_typo_in_the_name_of_a_secret_is_told_with_the_near_miss(site: Site, word: str) -> None:
    assert 'did you mean "one/grafana_admin"' in refusal(site(word, "one/graphana_admin")).what


def test_a_password_is_replaced_by_a_new_one(site: Site, watcher: Host) -> None:
    assert site("new", "one/grafana_admin", "--replace").exit_code == 0
    assert entries_of(watcher, GRAFANA)[0].key != "p" * 30
