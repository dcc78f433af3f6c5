"""Instances to export, and a program that tells with what it was started."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.catalog.entries import EngineKind
from corral.export import FORMS
from corral.export.subject import Subject
from tests.samples import CHAT, ROOT, host, planner

NASTY = [
    "plain",
    "",
    " ",
    "two words",
    " edges ",
    "%h",
    "$HOME",
    "${HOME}",
    "$$",
    'say "yes"',
    "it's",
    "back\\slash",
    "trailing\\",
    "\\n",
    "a;b",
    "new\nline",
    "tab\there",
    "#no comment",
    "{a,b}",
    "}",
    "*",
    "[x]",
    "`id`",
    "$(id)",
    "|&<>()!~",
    "\u00fc\N{SNOWMAN}\N{GRINNING FACE}",
    "\x7f\x85\u2028",
    "-1",
    "blk\\.(29|[3-9][0-9])\\.ffn_(up|gate|down)_exps\\.weight=CPU",
]
ALL_NASTY = " ".join(NASTY)
# Words that only a server of this test takes.
EXTRA = ("--words", *NASTY)
TWO_GPUS: dict[str, Any] = {**CHAT, "gpus": [1, 0]}

TELLS = """#!{python} -I
import json, os, sys
os.environ.pop("LC_CTYPE", None)  # Python's own
print(json.dumps([sys.argv, dict(os.environ)]))
"""


@dataclass(frozen=True)
class Started:
    """What a program saw, or why it was not started."""

    code: int
    err: str
    argv: list[str]
    environment: dict[str, str]


def subject(
    spec: dict[str, Any],
    kind: EngineKind = "llama.cpp",
    data: dict[str, Any] | None = None,
    **chat: Any,
) -> Subject:
    """An instance of the sample catalog; ``chat`` changes its chat profile."""
    plan = planner(**chat).plan_host(host(spec, **(data or {})))
    return Subject(host=plan.host, instance=plan.instances[0], release=plan.releases[0], kind=kind)


def exported(form: str, about: Subject) -> str:
    """The text of an export."""
    return FORMS[form](about, ROOT / "templates")


def telling_program(folder: Path) -> Path:
    """A server that only says its arguments and its environment."""
    path = folder / "server"
    path.write_text(TELLS.format(python=sys.executable))
    path.chmod(0o755)
    return path


def started(*command: str, **environment: str) -> Started:
    """Run a command whose last act is to start the telling program."""
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    argv, seen = json.loads(done.stdout) if done.stdout else ([], {})
    return Started(done.returncode, done.stderr, argv, seen)
