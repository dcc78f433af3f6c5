"""Secrets of the monitoring are adopted as keys are: from the host that has them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys import adoption
from corral.keys.adoption import Adopted, Wanted, adopt
from corral.keys.on_hosts import HeldKeys, HeldSecrets, names_in
from corral.paths import HOST_PATHS
from corral.store.alert_secrets import alert_secret
from corral.store.api_keys import keep_keys, key_path, keys_in, stored_keys
from corral.store.gateway_keys import GRAFANA, SCRAPE
from tests.samples import CHAT, bare, host
from tests.samples import plan as plan_of

OWN, KEY, OTHER_KEY, PASSWORD = (
    f"{word}-0123456789-abcdefghij" for word in ("own", "scrape", "other", "password")
)
GIVEN = "t0ken"


@pytest.fixture
def hosts(tmp_path: Path) -> list[Host]:
    """A host with a Prometheus for both, and one that it watches."""
    store = {"keys_folder": str(tmp_path / "store")}
    watching: dict[str, Any] = {"prometheus": {}, "grafana": {}}
    return [
        host(CHAT, name="watcher", monitoring=watching, **store),
        host(CHAT, name="watched", monitoring={}, **store),
    ]


def of_watcher(**secrets: str) -> HeldKeys:
    """+ secrets: of receivers of alerts"""
    return HeldKeys(
        instances={"chat": f"{OWN}\n{KEY}\n"},
        monitoring=HeldSecrets(
            alerts=secrets,
            scrape={"corral-servers-watcher": KEY, "corral-servers-watched": OTHER_KEY},
            grafana={"admin_password": PASSWORD, "another": "x"},
        ),
    )


WATCHED = HeldKeys(instances={"chat": f"{OWN}\n{OTHER_KEY}\n"})


def adopted(
    hosts: list[Host],
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, HeldKeys],
    *wanted: Wanted,
    replace: bool = False,
) -> list[Adopted]:
    """``answers``: by host; one that is not named is not reached."""

    def held(host: Host) -> HeldKeys:
        if host.name in answers:
            return answers[host.name]
        raise CorralError(host.name, "not reached (no route)", "bring it up")

    monkeypatch.setattr(adoption, "held_keys", held)
    return adopt(list(wanted), Inventory(path=Path("i.py"), hosts=tuple(hosts)), replace=replace)


def stored(one: Host, name: str) -> list[str]:
    return keys_in(stored_keys(one, name).text)


def test_all_of_it_is_adopted_and_no_key_for_scraping_becomes_one_of_a_client(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"watcher": of_watcher(ops=GIVEN), "watched": WATCHED}
    both = [Wanted(host=one) for one in hosts]
    done = adopted(hosts, monkeypatch, answers, *both)
    assert [(one.name, one.changed, one.problem) for one in done] == [
        ("watcher/chat", True, ""), ("watcher/alerts_ops", True, ""),
        ("watcher/grafana_admin", True, ""), ("watcher/scrape_metrics", True, ""),
        ("watched/chat", True, ""), ("watched/scrape_metrics", True, ""),
    ]  # fmt: skip
    watcher, watched = hosts
    assert (stored(watcher, "chat"), stored(watcher, SCRAPE)) == ([OWN], [KEY])
    assert (stored(watched, "chat"), stored(watched, SCRAPE)) == ([OWN], [OTHER_KEY])
    assert stored(watcher, GRAFANA) == [PASSWORD]
    path = key_path(watcher, "alerts_ops")
    assert (alert_secret(watcher, "alerts_ops"), path.read_text()) == (GIVEN, f"{GIVEN}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert adopted(hosts, monkeypatch, answers, *both) == []


def test_who_names_an_instance_gets_the_key_for_scraping_it_too(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next deploy would make another, and restart the instance with it."""
    answers = {"watcher": of_watcher(), "watched": WATCHED}
    wanted = Wanted(host=hosts[1], names=("chat",))
    done = adopted(hosts, monkeypatch, answers, wanted)
    assert [one.name for one in done] == ["watched/chat", "watched/scrape_metrics"]
    again = adopted(hosts, monkeypatch, answers, wanted)
    assert [(one.name, one.changed) for one in again] == [("watched/chat", False)]


def test_without_an_answer_of_the_prometheus_a_key_of_unknown_purpose_is_not_adopted(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(host=hosts[1])
    (done,) = adopted(hosts, monkeypatch, {"watched": WATCHED}, wanted)
    assert "a host of a Prometheus did not answer" in done.problem
    assert not key_path(hosts[1], "chat").exists()
    keep_keys(hosts[1], SCRAPE, [OTHER_KEY])
    (done,) = adopted(hosts, monkeypatch, {"watched": WATCHED}, wanted)
    assert done.changed
    assert stored(hosts[1], "chat") == [OWN]


@pytest.mark.parametrize("said", ["", " t0ken", "two\nlines", "t0ken\n", "täglich", "x" * 5000])
def test_what_is_not_one_line_is_not_adopted(
    said: str, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(host=hosts[0], names=("alerts_ops",))
    (done,) = adopted(hosts, monkeypatch, {"watcher": of_watcher(ops=said)}, wanted)
    assert "no line of ASCII text" in done.problem
    assert not key_path(hosts[0], "alerts_ops").exists()


def test_another_secret_of_the_store_is_replaced_on_purpose(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, answers = Wanted(host=hosts[0], names=("alerts_ops",)), {"watcher": of_watcher(ops="b")}
    path = key_path(hosts[0], "alerts_ops")
    path.parent.mkdir(parents=True)
    path.write_text("a\n")
    (refused,) = adopted(hosts, monkeypatch, answers, wanted)
    assert "--replace" in refused.problem
    assert path.read_text() == "a\n"
    (done,) = adopted(hosts, monkeypatch, answers, wanted, replace=True)
    assert (done.changed, path.read_text()) == (True, "b\n")
    (aside,) = (path.parent / ".replaced").iterdir()
    assert aside.read_text() == "a\n"


def test_a_name_that_leads_out_of_the_store_is_refused(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"watcher": of_watcher(**{"/../../x": GIVEN})}
    (done,) = adopted(hosts, monkeypatch, answers, Wanted(host=hosts[0]))
    assert "rename it" in done.problem
    assert not key_path(hosts[0], "chat").parent.exists()


def test_a_secret_that_the_host_lacks_is_to_be_written(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(host=hosts[0], names=("alerts_ops",))
    (done,) = adopted(hosts, monkeypatch, {"watcher": of_watcher()}, wanted)
    assert "watcher has no keys for it. Next: write it there: `install -D" in done.problem


def test_no_password_is_made_where_a_host_has_one() -> None:
    path = f"{HOST_PATHS.grafana_secrets}/admin_password"
    found = bare(plan_of({"name": "chat", "profile": "chat", "port": 8001}))
    for digest, names in (("ab12", {GRAFANA}), (None, set())):
        monitoring = found.monitoring.model_copy(update={"secrets": {path: digest}})
        state = found.model_copy(update={"monitoring": monitoring})
        assert names_in(state) - set(state.instances) == names


def test_no_way_of_printing_shows_a_secret() -> None:
    held = of_watcher(ops=GIVEN)
    shown = f"{held!r} {held} {held.monitoring!r} {held.monitoring} {[held.monitoring]!r}"
    assert not [one for one in (GIVEN, KEY, PASSWORD) if one in shown]
