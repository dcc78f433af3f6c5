"""Odd hosts: a program `ssh`, first in PATH, with configured answers.

It stands for a host that is broken, hostile, or set up in an unusual way: it sends bytes that are
not text, an endless answer, no answer, or output of start-up files.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_PROGRAM = """#!{python} -IS
import base64, json, os, subprocess, sys, time
from pathlib import Path

folder = Path({folder!r})
address, remote = sys.argv[sys.argv.index("--") + 1:]
with (folder / f"{{address}}.asked").open("a") as asked:
    asked.write(json.dumps(remote) + "\\n")
answers = json.loads((folder / f"{{address}}.json").read_text())
answer = next(one for needle, one in answers if needle in remote)
out = sys.stdout.buffer
out.write(base64.b64decode(answer["noise"]))
out.flush()
if answer["run_by"]:
    os.execvp(answer["run_by"][0], [*answer["run_by"], remote])
time.sleep(answer["delay_seconds"])
for _ in range(answer["times"]):
    out.write(base64.b64decode(answer["out"]))
out.flush()
sys.stderr.buffer.write(base64.b64decode(answer["err"]))
sys.stderr.flush()
time.sleep(answer["stays_seconds"])
os._exit(answer["code"])
"""


@dataclass(frozen=True)
class Answer:
    """A host's answer to one command.

    + noise: sent first, like output of start-up files; + out: sent ``times`` times; + code: of ssh
    + delay_seconds: before the answer; + stays_seconds: after it
    + run_by: really run the command, with this prefix, such as ("sh", "-c")
    """

    out: bytes = b""
    err: bytes = b""
    code: int = 0
    noise: bytes = b""
    times: int = 1
    delay_seconds: float = 0
    stays_seconds: float = 0
    run_by: tuple[str, ...] = ()


class OddHosts:
    """Odd hosts by address, in a folder; in ``path`` their `ssh` is first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "ssh"
        text = _PROGRAM.format(python=sys.executable, folder=str(folder))
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

    @property
    def path(self) -> str:
        """PATH with the stand-in first."""
        return f"{self._folder}{os.pathsep}{os.environ['PATH']}"

    def says(self, address: str, answers: Answer | Mapping[str, Answer]) -> None:
        """Set a host's answer: always the same one, or chosen by a part of the command line."""
        found = {"": answers} if isinstance(answers, Answer) else answers
        rows = [(needle, _plain(answer)) for needle, answer in found.items()]
        (self._folder / f"{address}.json").write_text(json.dumps(rows), encoding="utf-8")

    def asked(self, address: str) -> list[str]:
        """Command lines that a host has received, in order."""
        path = self._folder / f"{address}.asked"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _plain(answer: Answer) -> dict[str, object]:
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in asdict(answer).items()
    }
