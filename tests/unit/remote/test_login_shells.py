"""Login shells of hosts: words arrive as they are, and what start-up files say is no answer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.host import answers
from corral.project import helper_package
from corral.remote.client import installed_helper, travelling_helper
from corral.remote.helper_archive import BOOTSTRAP, archive
from corral.remote.ssh import quoted, ssh_command
from facts.gpu import Gpus
from facts.host import State
from facts.instance import Checks
from lab.odd_host import Answer, OddHosts
from tests.samples import CHAT, EXAMPLES, ROOT, host, plan

pytestmark = pytest.mark.slow

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "fish") if shutil.which(shell)]
WORDS = ["", "-x", "two words", "$HOME", "`id`", "it's", r"back\slash", r"\\", r"\'", "a\nb",
         '{"a": "\\n"}',
         "!x", "~", "%self", "{a,b}", "*", "#", "&", "=x", BOOTSTRAP]  # fmt: skip
NOISE = b"Welcome!\n{\n\x1b[2Jyou have mail"


def as_fish_reads(line: str) -> list[str]:
    """fish(1): between single quotes a backslash escapes a quote and itself."""
    words, word, rest = list[str](), "", list(line)
    inside = False
    while rest:
        character = rest.pop(0)
        if character == "'":
            inside = not inside
        elif character == "\\" and (not inside or rest[0] in "'\\"):
            word += rest.pop(0)
        elif character == " " and not inside:
            words, word = [*words, word], ""
        else:
            word += character
    return [*words, word]


@pytest.mark.parametrize("shell", SHELLS)
def test_words_arrive_as_they_are(shell: str) -> None:
    program = quoted("import sys; print(ascii(sys.argv[1:]))")
    line = " ".join([sys.executable, "-I", "-c", program, *map(quoted, WORDS)])
    done = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii(WORDS)


@given(st.lists(st.text(), min_size=1))
def test_fish_reads_what_was_meant(words: list[str]) -> None:
    assert as_fish_reads(" ".join(map(quoted, words))) == words


def test_no_command_of_pyinfras_has_what_fish_reads_otherwise() -> None:
    """pyinfra quotes its own commands, for sh(1), around those that are made here."""
    for command in (State().command(BOOTSTRAP), Checks().command("/h"), Gpus().command("/h")):
        assert "\\" not in str(command.get_raw_value())
        assert "python3 -I " in str(command.get_raw_value())


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    monkeypatch.chdir(EXAMPLES)
    found = OddHosts(tmp_path / "odd")
    monkeypatch.setenv("PATH", found.path)
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_both_helpers_answer_past_a_noisy_start(odd: OddHosts, tmp_path: Path, shell: str) -> None:
    odd.says("lab-1", Answer(noise=NOISE, run_by=(shell, "-c")))
    found = travelling_helper(host(CHAT)).ask(["state"], answers.STATE, plan(CHAT).to_helper())
    assert found.readable
    helper = tmp_path / "corral_host.pyz"
    helper.write_bytes(archive(helper_package(ROOT)))
    text = plan(CHAT).to_helper()
    assert installed_helper(host(CHAT), str(helper)).ask(["state"], answers.STATE, text).readable
    assert all(line.startswith("python3 -I ") for line in odd.asked("lab-1"))


def test_nothing_is_imported_from_the_login_folder(
    odd: OddHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd.says("lab-1", Answer(run_by=("sh", "-c")))
    home = tmp_path / "home"
    home.mkdir()
    for name in ("base64", "json", "corral_host"):
        (home / f"{name}.py").write_text("raise SystemExit('imported from the login folder')")
    (home / "sitecustomize.py").write_text("print('imported from PYTHONPATH')")
    monkeypatch.setenv("PYTHONPATH", str(home))
    document, shape = plan(CHAT).to_helper(), answers.STATE
    monkeypatch.setattr("corral.remote.client.project_root", lambda: EXAMPLES)
    monkeypatch.chdir(home)
    assert travelling_helper(host(CHAT)).ask(["state"], shape, document).readable


def test_sudo_is_quoted_as_well() -> None:
    remote = ssh_command(host(CHAT, _sudo=True), ["echo", r"a\b"])[-1]
    assert as_fish_reads(remote) == ["sudo", "-n", "--", "echo", r"a\b"]
