"""`corral export` itself: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest

from corral.cli import main
from tests.samples import EXAMPLES

pytestmark = pytest.mark.slow

SITE = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001}
long = {"name": "long", "profile": "tiny-long", "port": 8002}
servers = [("node-1", {"instances": [chat, long]}), ("node-2", {"instances": [chat]})]
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one inventory of two hosts, and nothing known of any header."""
    for folder in ("catalog", "templates"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    for file in ("deploy.py", "corral.lock"):
        shutil.copy(EXAMPLES / file, tmp_path / file)
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "site.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corral_export(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["corral", "export", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("env", "LLAMA_ARG_PORT=8002"),
        ("script", "    --port 8002 \\"),
        ("compose", '      - "127.0.0.1:8002:8002"'),
    ],
)
def test_each_form_is_printed(
    form: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert corral_export(monkeypatch, "long", "--as", form) == 0
    shown = capsys.readouterr()
    assert line in shown.out.splitlines()
    assert "# The server of node-1/long (profile tiny-long, generation " in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(("form", "wanted"), [("script", 0o755), ("env", 0o644)])
def test_a_file_is_written_once_and_replaced_by_force_only(
    form: str,
    wanted: int,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = checkout / "out" / "server"
    path.parent.mkdir()
    words = ("node-2/chat", "--as", form, "-o", str(path))
    assert corral_export(monkeypatch, *words) == 0
    assert (mode(path), capsys.readouterr().out) == (wanted, "")
    text = path.read_text()
    path.write_text("mine")
    assert corral_export(monkeypatch, *words) == 1
    assert f"{path}: exists already\n  Next: add --force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert corral_export(monkeypatch, *words, "--force") == 0
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("place", ["no/folder/server", "corral.lock/server", ".", "inventories"])
def test_a_place_where_no_file_can_be_is_one_message(
    place: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("node-2/chat", "--as", "env", "--force", "-o", place)
    before = sorted(checkout.rglob("*"))
    assert corral_export(monkeypatch, *words) == 1
    said = capsys.readouterr().err
    assert f"{place}: cannot be written: " in said
    assert said.count("\n  Next: ") == 1
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("chat", "names node-1/chat and node-2/chat"),
        ("node-1", "names node-1/chat and node-1/long"),
        ("lang", 'no such host or instance (did you mean "long"?)'),
    ],
)
def test_anything_but_one_instance_is_one_message(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corral_export(monkeypatch, name, "--as", "env") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{name}: {what}\n  Next: " in shown.err


# Of others than node-1/long: file, old text, new text, and its message.
OTHERS = {
    "data of another host": ("inventories/site.py", '("node-2", {', '("node-2", {"gpu": 1, ', ""),
    "a profile of nobody": ("catalog/profiles/glm-4.7-q2.toml", "slots =", "slotz =", ""),
    "a platform of nobody": ("catalog/platforms/ubuntu-22.04.toml", "compiler =", "compilr =", ""),
    "an engine of nobody": ("catalog/engines/ik_llama.cpp.toml", "commit =", "comit =", ""),
    "a profile of its neighbour": (
        "catalog/profiles/tiny-chat.toml", "slots =", "slotz =", 'unknown key "slotz"',
    ),
    "an unknown profile of its neighbour": (
        "inventories/site.py", '"profile": "tiny-chat"', '"profile": "tiny-cat"', '"tiny-cat"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", OTHERS)
def test_a_mistake_of_others_disables_nothing(
    mistake: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("node-1/long", "--as", "script")
    assert corral_export(monkeypatch, *words) == 0
    before = capsys.readouterr().out
    file, old, new, message = OTHERS[mistake]
    text = (checkout / file).read_text()
    assert old in text
    (checkout / file).write_text(text.replace(old, new, 1))
    assert corral_export(monkeypatch, *words) == 0
    shown = capsys.readouterr()
    assert shown.out == before
    assert message in shown.err
    assert ("node-1/long is shown as if it was alone on its host:" in shown.err) == bool(message)
    assert bool(shown.err) == bool(message)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("catalog/profiles/tiny-long.toml", "slots =", "slotz =", 'unknown key "slotz"'),
        ("inventories/site.py", '("node-1", {', '("node-1", {"gpu": 1, ', 'unknown key "gpu"'),
        ("inventories/site.py", "tiny-long", "tiny-lang", '"tiny-lang"'),
        ("corral.lock", '"requested": "main"', '"requested": "v1"', "stale"),
    ],
)
def test_its_own_mistake_is_one_message(
    file: str,
    old: str,
    new: str,
    message: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (checkout / file).read_text()
    assert old in text
    (checkout / file).write_text(text.replace(old, new, 1))
    assert corral_export(monkeypatch, "node-1/long", "--as", "env") == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n  Next: ")) == ("", 1)
    assert message in shown.err
