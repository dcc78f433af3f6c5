"""Monitoring is put in place, noticed where it differs, and removed."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

install, monitored = helper_module("monitoring.install"), helper_module("observe.monitored")
drift, checks = helper_module("monitoring.drift"), helper_module("checks.prometheus")
commands = helper_module("system.commands")


@dataclass
class Systemd:
    """The commands that it got, and which units run."""

    said: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    def output(self, _: str, *words: str) -> str:
        self.said.append(" ".join(words))
        if words[0] == "restart":
            self.running.add(words[1])
        return ""

    def quiet(self, *words: str) -> None:
        self.said.append(" ".join(words))
        self.running.discard(words[-1])

    def show(self, unit: str, *_: str) -> dict[str, str]:
        runs = unit in self.running
        return {"ActiveState": "active" if runs else "inactive", "UnitFileState": "enabled"}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(install, "output", made.output)
    monkeypatch.setattr(install, "quiet", made.quiet)
    monkeypatch.setattr(install, "show", made.show)
    monkeypatch.setattr(monitored, "show", made.show)
    return made


def plan(folder: Path, **texts: str) -> dict[str, Any]:
    files = {str(folder / "units" / f"{name}.timer"): text for name, text in texts.items()}
    monitoring = {"files": files, "units": [f"{name}.timer" for name in texts]}
    return {"paths": {"state": str(folder / "state")}, "monitoring": monitoring}


def differs(document: dict[str, Any], *missing: str) -> list[str]:
    wanted = document["monitoring"]
    found: list[str] = monitored.monitoring_state(wanted, document["paths"], [*missing])["differs"]
    return found


def apply(document: dict[str, Any]) -> None:
    install.write(document)
    install.start(document)


def test_what_was_applied_is_as_planned_until_somebody_changes_it(
    tmp_path: Path, systemd: Systemd
) -> None:
    document = plan(tmp_path, a="one\n", b="two\n")
    assert differs(document)
    apply(document)
    assert differs(document) == []
    assert differs(document, "prometheus") == ["package prometheus"]
    edited = tmp_path / "units/a.timer"
    edited.write_text("edited\n")
    assert differs(document) == [str(edited)]
    apply(document)
    systemd.running.discard("b.timer")
    assert differs(document) == ["b.timer"]


def test_files_alone_are_not_applied(tmp_path: Path, systemd: Systemd) -> None:
    """A controller that is killed before the start is followed by one that starts."""
    document = plan(tmp_path, a="one\n")
    apply(document)
    changed = plan(tmp_path, a="other\n")
    install.write(changed)
    assert differs(changed) == ["its files and units are not applied"]
    assert systemd.said.count("restart a.timer") == 1
    install.start(changed)
    assert systemd.said.count("restart a.timer") == 2
    assert differs(changed) == []


def test_what_a_plan_no_longer_has_is_removed_even_after_a_kill(
    tmp_path: Path, systemd: Systemd
) -> None:
    apply(plan(tmp_path, a="one\n", b="two\n"))
    smaller = plan(tmp_path, a="one\n")
    assert differs(smaller)
    install.write(smaller)
    install.write(smaller)
    install.start(smaller)
    assert systemd.running == {"a.timer"}
    assert not (tmp_path / "units/b.timer").exists()


def test_monitoring_that_left_the_inventory_is_removed(tmp_path: Path, systemd: Systemd) -> None:
    document = plan(tmp_path, a="one\n")
    nothing = {**document, "monitoring": None}
    assert differs(nothing) == []
    apply(document)
    assert differs(nothing) == ["no longer in the inventory"]
    install.stop(nothing)
    assert differs(nothing) == []
    assert not systemd.running
    assert not (tmp_path / "units/a.timer").exists()


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_damaged_record_is_applied_again(tmp_path: Path, systemd: Systemd, damage: str) -> None:
    document = plan(tmp_path, a="one\n")
    apply(document)
    monitored.applied_path(document["paths"]).write_text(damage)
    assert differs(document) == ["its files and units are not applied"]
    apply(document)
    assert differs(document) == []
    assert json.loads(monitored.applied_path(document["paths"]).read_text())["units"] == ["a.timer"]
    assert systemd.running == {"a.timer"}


def with_secret(folder: Path, text: str, **answers: str) -> dict[str, Any]:
    document = plan(folder, a="one\n")
    path = str(folder / "secrets" / "a" / "key")
    more = {"secrets": {path: "other/scrape_metrics"}, "answers": answers, "targets": ""}
    return {
        **document, "monitoring": {**document["monitoring"], **more}, "secret_texts": {path: text}
    }  # fmt: skip


def secrets(document: dict[str, Any]) -> dict[str, Any]:
    wanted = document["monitoring"]
    found: dict[str, Any] = monitored.monitoring_state(wanted, document["paths"], [])["secrets"]
    return found


def test_a_secret_is_for_root_alone_and_goes_with_the_rest(
    tmp_path: Path, systemd: Systemd
) -> None:
    document = with_secret(tmp_path, "k1")
    (path,) = document["secret_texts"]
    assert secrets(document) == {path: None}
    apply(document)
    assert (Path(path).read_text(), Path(path).stat().st_mode & 0o777) == ("k1", 0o600)
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert secrets(document) == {path: install.sha256("k1")}
    Path(path).chmod(0o640)
    assert secrets(document) == {path: None}
    apply(document)
    assert secrets(document) == {path: install.sha256("k1")}
    assert install.sha256("k1") not in monitored.applied_path(document["paths"]).read_text()
    install.stop({**document, "monitoring": None})
    assert not Path(path).exists()
    assert not systemd.running


@pytest.mark.usefixtures("systemd")
def test_a_secret_that_left_the_plan_is_removed(tmp_path: Path) -> None:
    document = with_secret(tmp_path, "k1")
    apply(document)
    (path,) = document["secret_texts"]
    apply(plan(tmp_path, a="one\n"))
    assert not Path(path).exists()


def test_a_program_that_somebody_else_runs_is_not_replaced(
    tmp_path: Path, systemd: Systemd
) -> None:
    systemd.running.add("prometheus.service")
    document = with_secret(tmp_path, "k1", **{"prometheus.service": "http://127.0.0.1:1/"})
    with pytest.raises(commands.HostError, match="Corral did not set it up"):
        install.write(document)
    assert not (tmp_path / "units").exists()
    assert monitored.applied(document["paths"]) is None


class Answers(http.server.BaseHTTPRequestHandler):
    """A program that is not healthy at first, and knows its targets."""

    codes: tuple[int, ...] = ()

    def do_GET(self) -> None:
        left = type(self).codes
        code, type(self).codes = (left[0], left[1:]) if left else (200, ())
        targets = [
            {"scrapeUrl": "http://a/", "health": "up", "lastError": ""},
            {"scrapeUrl": "http://b/", "health": "down", "lastError": "status 401"},
        ]
        body = json.dumps({"data": {"activeTargets": targets}}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


@contextmanager
def answering(*codes: int) -> Iterator[str]:
    Answers.codes = codes
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/-/healthy"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("systemd")
def test_it_is_applied_once_its_programs_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PAUSE_SECONDS", 0.01)
    with answering(503, 404) as url:
        document = with_secret(tmp_path, "k1", **{"a.timer": url})
        apply(document)
        assert Answers.codes == ()
    assert differs(document) == []
    monkeypatch.setattr(install, "ANSWER_SECONDS", 0)
    with pytest.raises(commands.HostError, match=r"a.timer does not answer at .*journalctl"):
        apply(document)
    assert differs(document) == ["its files and units are not applied"]


def test_verify_says_what_answers_and_which_targets_are_down() -> None:
    with answering() as url:
        plan = {"answers": {"prometheus.service": url}, "targets": url}
        rows = list(checks.rows(plan))
        assert [(one["check"], one["ok"]) for one in rows] == [("answers", True), ("targets", True)]
        assert rows[1]["detail"] == "1 of 2 are not down; http://b/: status 401"
    assert [one["ok"] for one in checks.rows(plan)] == [False, False]


def test_drift_of_monitoring_names_each_difference(tmp_path: Path, systemd: Systemd) -> None:
    document = with_secret(tmp_path, "k1")
    paths = document["paths"]
    assert list(drift.of_monitoring(paths)) == []
    apply(document)
    assert list(drift.of_monitoring(paths)) == []
    (key,) = document["secret_texts"]
    Path(key).unlink()
    (tmp_path / "units/a.timer").write_text("edited\n")
    systemd.running.clear()
    found = [(one["planned"], one["found"]) for one in drift.of_monitoring(paths)]
    assert found == [
        (str(tmp_path / "units/a.timer"), "it was changed"),
        (f"{key}, for root alone", "it is missing or open"),
        ("a.timer runs, and starts at boot", "it does not"),
    ]
    install.write(document)
    (row,) = drift.of_monitoring(paths)
    assert row["found"] == "a deploy of it did not end"
