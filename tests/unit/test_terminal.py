"""What hosts, servers and their clients say reaches the operator's terminal as text alone."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from corral.cli.views.instances import gate_table
from corral.errors import CorralError
from corral.host.activation_report import Report, Row
from corral.remote.progress import Progress
from corral.rollout.journal import Rollout
from corral.rollout.page import page
from corral.rollout.staging import run_pyinfra
from corral.rollout.view import LineView, LiveView
from corral.terminal import console
from lab.odd_host import Answer, OddHosts
from tests.samples import ROOT
from tests.unit.cli.test_cli import Corral, Said, corral
from tests.unit.odd_fleet import COMMANDS, OddFleet, good, odd_fleet, odd_hosts
from tests.unit.rollout_samples import report, rollout

pytestmark = pytest.mark.slow

__all__ = ["corral"]

EVIL = "\x1b]0;owned\x07 \x1b[2J \x9b2J \u202e [bold]x[/bold] [/] [red] :cat:"
TOLD = "[bold]x[/bold] [/] [red] :cat:"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    return odd_hosts(tmp_path / "odd", monkeypatch)


@pytest.fixture
def fleet(corral: Corral, hosts: OddHosts) -> OddFleet:
    made = odd_fleet(corral, hosts)
    made.hosts.says("odd", good(made.plan("odd"), EVIL))
    return made


def assert_text(said: Said | str) -> None:
    text = said if isinstance(said, str) else said.out + said.err
    assert RAW.findall(text) == []
    assert "Traceback" not in text
    assert "[bold]x[/bold]" in text or "[bold]x[/" in text


@pytest.mark.parametrize(
    "words",
    [*COMMANDS, ("show", "odd/chat", "--log"), ("unpin", "odd/chat", "x"), ("fit", "tiny-glm-moe",
     "--host", "odd")],
    ids=" ".join,
)  # fmt: skip
def test_good_answers_with_bad_text_in_them(fleet: OddFleet, words: tuple[str, ...]) -> None:
    said = fleet(*words)
    if words[0] != "fit" and "--forget" not in words:  # which do not repeat it
        assert_text(said)
    assert RAW.findall(said.out + said.err) == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "answer",
    [Answer(err=EVIL.encode(), code=1), Answer(err=EVIL.encode(), code=255), Answer(EVIL.encode())],
)
def test_errors_with_bad_text_in_them(
    fleet: OddFleet, words: tuple[str, ...], answer: Answer
) -> None:
    fleet.hosts.says("odd", answer)
    said = fleet(*words)
    assert said.code == 1
    assert RAW.findall(said.out + said.err) == []
    assert "well" in said.out


def test_the_message_of_an_error(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", Answer(err=EVIL.encode(), code=1))
    assert_text(fleet("fit", "tiny-glm-moe", "--host", "odd"))


@pytest.mark.parametrize("code", [0, 3])
def test_logs_are_passed_on_as_text(fleet: OddFleet, code: int) -> None:
    said = (f"é {EVIL}\n" * 2).encode() + b"\xff\n"
    fleet.hosts.says("odd", Answer(said, err=EVIL.encode(), code=code))
    shown = fleet("logs", "odd")
    assert shown.code == code
    assert_text(shown.out)
    assert_text(shown.err)
    assert shown.out.count("é ") == 2


def test_logs_that_are_followed_come_at_once(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", Answer(f"{EVIL}\n".encode(), stays_seconds=60))
    program = "from corral.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "logs", "odd", "-f", "-i", "inventories/site.py"],
        cwd=fleet.corral.root, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'files'}", "PATH": fleet.hosts.path},
    ) as following:  # fmt: skip
        assert following.stdout
        assert_text(following.stdout.readline())
        following.kill()


def test_logs_whose_reader_has_enough_end(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", Answer(b"line\n" * 1000, times=100_000))
    program = "from corral.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "logs", "odd", "-i", "inventories/site.py"],
        cwd=fleet.corral.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'files'}", "PATH": fleet.hosts.path},
    ) as shown:  # fmt: skip
        assert shown.stdout
        assert shown.stderr
        assert shown.stdout.readline() == "line\n"
        shown.stdout.close()
        shown.wait(timeout=120)
        assert "Traceback" not in shown.stderr.read()


def evil_report() -> Report:
    gate = [{"part": EVIL, "ok": False, "figure": EVIL, "limit": EVIL, "detail": EVIL}]
    words = {"reason": EVIL, "by": EVIL, "how": EVIL, "log": EVIL, "serving": EVIL}
    return Report.model_validate(report("a", "reverted", gate=gate, **words))


def test_a_rollout_that_is_watched() -> None:
    out = io.StringIO()
    terminal = console(file=out, width=200)
    live = LiveView(terminal, rollout("a"))
    for news in (Progress(phase=EVIL, detail=EVIL), Progress(detail=EVIL, silent_seconds=3)):
        live.on_progress("a/chat", news)
        terminal.print(live._draw())
    live.ended(evil_report())
    live.print_line(EVIL)
    terminal.print(live._draw())
    lines = LineView(terminal)
    lines.print_line(EVIL)
    lines.on_progress("a/chat", Progress(phase="gate", line=EVIL))
    lines.ended(evil_report())
    assert_text(out.getvalue())


def test_the_page_of_a_rollout() -> None:
    changed = rollout("a", failure=EVIL, notes=(EVIL,), reports=(evil_report(),))
    step = changed.steps[0].model_copy(update={"changes": (EVIL, "<b>")})
    changed = Rollout.model_validate({**changed.model_dump(), "steps": (step,)})
    text = page(changed, ROOT / "templates")
    assert RAW.findall(text) == []
    assert "&lt;b&gt;" in text
    assert "&amp;lt;" not in text


def test_the_rows_of_a_gate() -> None:
    out = io.StringIO()
    row = Row(part=EVIL, ok=None, figure=EVIL, limit=EVIL, detail=EVIL)
    Console(file=out, width=1000).print(gate_table([row]))
    assert_text(out.getvalue())
    assert out.getvalue().count(TOLD) == 4


def test_what_pyinfra_says_while_it_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen
    text = f"import sys; sys.stdout.buffer.write({EVIL.encode() + b' ' + bytes([255])!r})"
    monkeypatch.setattr(
        "subprocess.Popen", lambda _, **how: real([sys.executable, "-c", text], **how)
    )
    monkeypatch.setattr("corral.rollout.staging.project_root", lambda: tmp_path)
    said: list[str] = []
    run_pyinfra(Path("i.py"), (), tmp_path / "log", said.append)
    assert_text("".join(said))
    assert_text((tmp_path / "log").read_text())


def test_documents_for_programs_are_ascii(fleet: OddFleet) -> None:
    said = fleet("history", "odd", "--json")
    assert said.out.isascii()
    assert json.loads(said.out)[0]["reason"] == EVIL


PRINTS = re.compile(r"\bclick\.s?echo\(|^\s*print\(|\bConsole\(|\bTable\(|\brich\.markup\b")
LOGS = re.compile(r"\blogger\b")


def test_nothing_is_printed_past_the_one_place_for_it() -> None:
    for part, pattern, place in (
        ("corral", PRINTS, "corral/terminal.py"), ("operations", LOGS, "operations/messages.py"),
        ("deploys", LOGS, "operations/messages.py"),
    ):  # fmt: skip
        for path in (ROOT / part).rglob("*.py"):
            found = [line for line in path.read_text().splitlines() if pattern.search(line)]
            if str(path.relative_to(ROOT)) == place:
                assert found
            else:
                assert found == [], path


def test_an_error_is_printed_as_text(corral: Corral, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise CorralError(EVIL, EVIL, EVIL)

    monkeypatch.setattr("corral.cli.plan.select", fail)
    assert_text(corral("plan", "node-1"))
