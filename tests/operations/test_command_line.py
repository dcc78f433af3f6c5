"""A deploy that would touch no host, or could ask nobody, is refused, not skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples import EXAMPLES, ROOT

SITE = 'servers = [("@fake/one", {"fake_delay": 0}), ("@fake/two", {"fake_delay": 0})]\n'
DEPLOY = "from pyinfra.operations import server\nserver.shell(name='Do it', commands=['true'])\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(SITE)
    (tmp_path / "do.py").write_text(DEPLOY)
    return tmp_path


def pyinfra(site: Path, *arguments: str) -> tuple[int, str]:
    """Run pyinfra as an operator does in the checkout, where its config.py is."""
    made = ("site.py", "do.py")
    named = [str(site / word) if word in made else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", *named],
        cwd=EXAMPLES, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYINFRA_PROGRESS": "off", "HOME": str(site),
             "PYTHONPATH": f"{ROOT}:{ROOT / 'files'}"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("inventories/prd.py", "do.py", "-y"), 'did you mean "inventories/prod.py"?'),
        (("prod", "do.py", "-y"), "prod: no such inventory"),
        (("site.py", "do.py", "-y", "--limit", "nohost"), "--limit nohost: no such host or group"),
        (("site.py", "do.py", "-y", "--limit", "@fake/one", "--limit", "@fake/tow"),
         'did you mean "@fake/two"?'),
        (("site.py", "do.py", "-y", "--exclude", "@fake/tow"), "--exclude @fake/tow"),
        (("site.py", "do.py", "-y", "--exclude", "@fake/*"), "no host is left of it"),
        (("site.py", "do.py"), "there is no terminal to ask on"),
    ],
)  # fmt: skip
def test_a_run_that_would_do_nothing_is_refused(
    site: Path, arguments: tuple[str, ...], reported: str
) -> None:
    code, said = pyinfra(site, *arguments)
    assert code == 1, said
    assert reported in said
    assert "Next: " in said
    assert "Traceback" not in said
    assert "Starting operation" not in said


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (b"servers = 1 +", "SyntaxError: "), (b"raise RuntimeError('x')", "RuntimeError: x"),
        (b"import sys; sys.exit(0)", "SystemExit: 0"), (b"import nothing_of_that_name", "Error: "),
        (b'servers = ["\xff"]', "utf-8"), (b"servers = 7", "none with hosts"), (b"", "none with"),
        (b"servers = [('x', 7)]", "the data of x must be a dictionary, not int"),
    ],
)  # fmt: skip
def test_an_inventory_that_cannot_be_read_is_one_message(
    site: Path, text: bytes, reported: str
) -> None:
    (site / "site.py").write_bytes(text)
    code, said = pyinfra(site, "site.py", "do.py", "-y")
    assert code == 1, said
    assert reported in said
    assert said.count("Next: ") == 1
    assert "Traceback" not in said
    (site / "site.py").unlink()
    (site / "site.py").mkdir()
    code, said = pyinfra(site, "site.py", "do.py", "-y")
    assert (code, "site.py: is a folder" in said, "Traceback" in said) == (1, True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("site.py", "do.py", "-y"), ("site.py", "do.py", "--dry"),
        ("site.py", "do.py", "-y", "--limit", "servers"),
        ("site.py", "do.py", "-y", "--limit", "@fake/o*"),
        ("@fake/one,@fake/two", "do.py", "-y", "--exclude", "@fake/two"),
        ("site.py", "debug-inventory"),
    ],
)  # fmt: skip
def test_other_runs_are_pyinfras_own_business(site: Path, arguments: tuple[str, ...]) -> None:
    code, said = pyinfra(site, *arguments)
    assert code == 0, said


def test_a_host_that_fails_where_nobody_can_be_asked_is_no_traceback(site: Path) -> None:
    gone = '("gone", {"ssh_hostname": "127.0.0.9", "ssh_port": 9})'
    (site / "site.py").write_text(SITE.replace("servers = [", f"servers = [{gone}, "))
    code, said = pyinfra(site, "site.py", "do.py", "--dry")
    assert code == 1
    assert "there is no terminal to ask on: " in said
    assert "EOFError" not in said
    assert "Traceback" not in said
