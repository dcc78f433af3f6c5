"""`corral page` and `corral watch` over scripted hosts: each says what its own command says."""

from __future__ import annotations

import http.client
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from corral.cli.views.fleet import fleet_view, memory_bar
from corral.page.document import FleetPage
from corral.rollout.journal import Journals
from corral.terminal import console
from lab.odd_host import Answer
from tests.samples import ROOT
from tests.unit.cli.test_cli import Corral, corral
from tests.unit.odd_fleet import OddFleet, good, odd_fleet, odd_hosts
from tests.unit.page.samples import fleet as sample
from tests.unit.page.samples import rollout_of_three, said_everywhere

pytestmark = pytest.mark.slow

__all__ = ["corral"]

EVIL = "\x1b]0;owned\x07 \x9b2J \u202e <script>alert(1)</script>"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def fleet(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddFleet:
    made = odd_fleet(corral, odd_hosts(tmp_path / "hosts", monkeypatch))
    made.hosts.says("odd", good(made.plan("odd")))
    return made


def document(fleet: OddFleet, *words: str) -> FleetPage:
    said = fleet("page", "--json", "--state", str(fleet.corral.root / "state"), *words)
    assert said.code == 2, said.err
    return FleetPage.model_validate_json(said.out)


def test_a_page_has_what_the_other_commands_say(fleet: OddFleet) -> None:
    page = document(fleet)
    assert [host.name for host in page.hosts] == ["odd", "well"]
    (chat,) = (one for one in page.hosts[1].instances if one.name == "chat")
    status = json.loads(fleet("status", "--json").out)["well"]["instances"]["chat"]
    assert (chat.health, chat.model, chat.since) == (
        status["health"], status["model"], status["since"],
    )  # fmt: skip
    history = json.loads(fleet("history", "well", "--json").out)
    assert [one.document() | {"log": ""} for one in page.hosts[1].history] == [
        one | {"log": ""} for one in history
    ]
    drift = json.loads(fleet("drift", "--json").out)["well"]
    assert page.hosts[1].drift is not None
    assert [row.model_dump() for row in page.hosts[1].drift] == drift
    assert {one.name for one in page.alerts} == {"instance", "drift"}


def test_a_file_is_written_for_its_owner_alone_and_is_safe(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", good(fleet.plan("odd"), EVIL))
    path = fleet.corral.root / "fleet.html"
    said = fleet("page", "-o", str(path))
    assert (said.code, said.out) == (2, f"{path}: 0 of 2 hosts well, 5 alerts\n")
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert RAW.findall(text) == []
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_host_without_an_answer_is_on_the_page(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", Answer(err=b"no route", code=255))
    page = document(fleet)
    assert "no route" in page.hosts[0].problem
    assert page.hosts[0].drift is None
    assert (page.alerts[0].name, page.alerts[0].where) == ("no answer", "odd")
    assert page.hosts[1].problem == ""


def test_a_part_that_a_host_does_not_say_is_unknown_not_empty(fleet: OddFleet) -> None:
    answers = good(fleet.plan("odd"))
    for needle in (" drift", " history", " baselines"):
        answers[needle] = Answer(b"{}")
    fleet.hosts.says("odd", answers)
    host = document(fleet).hosts[0]
    assert (host.drift, host.history, len(host.unknown)) == (None, (), 3)
    assert not host.is_good


def test_a_rollout_that_has_not_ended_is_on_the_page(fleet: OddFleet) -> None:
    inventory = (fleet.corral.root / "inventories" / "site.py").resolve()
    begun = {"inventory": str(inventory), "exit_code": None, "ended_at": None, "reverts": ()}
    Journals(fleet.corral.root / "state").save(rollout_of_three().model_copy(update=begun))
    (rollout,) = document(fleet).rollouts
    assert (rollout.done, rollout.instances) == (2, 3)
    assert [wave.done for wave in rollout.waves] == [1, 1]


def test_alerts_of_an_address_that_does_not_answer_are_no_silence(fleet: OddFleet) -> None:
    page = document(fleet, "--alerts", "http://127.0.0.1:9")
    assert (page.alerts, page.alerts_from) == ((), "http://127.0.0.1:9")
    assert "does not answer" in page.alerts_problem


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("page",), "add -o fleet.html"),
        (("page", "-o", "no/such/folder.html"), "choose another file with -o"),
        (("page", "--json", "--alerts", "x"), "is no address"),
        (("watch",), "has no terminal"),
        (("watch", "--serve", "0.0.0.0:0"), "--exposed"),
        (("watch", "--serve", "x"), "is no ADDRESS:PORT"),
    ],
)
def test_what_cannot_be_shown_says_why(fleet: OddFleet, words: tuple[str, ...], what: str) -> None:
    said = fleet(*words)
    assert said.code == 1
    assert what in said.err
    assert "Traceback" not in said.err


def test_a_served_page_is_of_the_hosts_and_ends_when_it_is_interrupted(fleet: OddFleet) -> None:
    program = "from corral.cli import main; main()"
    words = ("watch", "--serve", "127.0.0.1:0", "--every", "1s", "-i", "inventories/site.py")
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=fleet.corral.root, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'files'}", "PATH": fleet.hosts.path,
             "HOME": str(fleet.corral.root)},
    ) as serving:  # fmt: skip
        try:
            assert serving.stdout
            line = serving.stdout.readline()
            port = int(line.split("/")[2].rpartition(":")[2])
            while (body := answered(port)).startswith("The hosts are being asked"):
                continue
            assert 'id="host-well"' in body
            assert 'data-refresh="1"' in body
        finally:
            serving.send_signal(2)
        _, errors = serving.communicate(timeout=120)
    assert "Traceback" not in errors


def answered(port: int) -> str:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    link.request("GET", "/")
    body = link.getresponse().read().decode()
    link.close()
    return body


def test_a_terminal_shows_the_same_page() -> None:
    text = drawn(sample())
    for word in ("CorralDown", "corral status gpu-04", "it does not run its plan", "timed out",
                 "71.3 generation at 4096 (99 % of the baseline)", "has not ended: 2 of 4",
                 "72,704 of 75,776 MiB", "reverted"):  # fmt: skip
        assert word in text


def test_a_terminal_shows_hostile_text_as_text() -> None:
    assert RAW.findall(drawn(said_everywhere(EVIL))) == []


def test_bars_of_a_terminal_have_one_width() -> None:
    bars = {memory_bar(gpu).plain for gpu in sample().gpus}
    assert {len(bar) for bar in bars} == {24}
    assert "#####################=.." in bars


def drawn(page: FleetPage) -> str:
    out = io.StringIO()
    console(file=out, width=240).print(fleet_view(page))
    return out.getvalue()
