"""What operators type, each in a clone of the project, and what came of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

INVENTORY = "lab/chaos/inventory.py"
_LIMIT_SECONDS = 900
_QUESTION = "Change them?"

By = Literal["rollout", "deploy"]


@dataclass(frozen=True)
class Done:
    """A command of the operator that ended; exit code None when it was killed."""

    code: int | None
    text: str
    seconds: float


@dataclass(frozen=True)
class Clone:
    """A clone of the project, in which somebody types commands."""

    path: Path

    def deploy(self) -> Done:
        """The plain command, to its end."""
        return ended(self.start("deploy"))

    def start(self, by: By, *words: str) -> Operator:
        """Begin a rollout or a deploy of what is wanted."""
        commands = {
            "rollout": [_program("corral"), "rollout", INVENTORY, "-y"],
            "deploy": [_program("pyinfra"), INVENTORY, "deploy.py", "-y"],
        }
        return Operator.start([*commands[by], *words], self.path)

    def corral(self, *words: str) -> Done:
        """Another command of Corral's, to its end."""
        return ended(Operator.start([_program("corral"), *words], self.path))

    def declined_rollout(self) -> Done:
        """A rollout at a terminal, whose question is answered with no."""
        ours, theirs = pty.openpty()
        try:
            words = [_program("corral"), "rollout", INVENTORY]
            operator = Operator.start(words, self.path, stdin=theirs)
            operator.wait_for(_QUESTION)
            os.write(ours, b"n\n")
            return ended(operator)
        finally:
            os.close(ours)
            os.close(theirs)

    def findings(self) -> tuple[str, ...]:
        """What `corral verify` finds wrong, as HOST/INSTANCE: CHECK."""
        done = self.corral("verify", "--json", "-i", INVENTORY)
        try:
            # Its advice comes after it.
            told, _ = json.JSONDecoder().raw_decode(done.text)
        except ValueError:
            return (done.text,)
        rows = [(host, row) for host, rows in told["checks"].items() for row in rows]
        found = {f"{host}/{row['instance']}: {row['check']}" for host, row in rows if not row["ok"]}
        return tuple(sorted(found)) or (() if done.code == 0 else (f"exit code {done.code}",))


@dataclass(frozen=True)
class Operator:
    """A command that an operator typed, while it runs. Its words go to a file."""

    process: subprocess.Popen[bytes]
    log: Path
    began_seconds: float

    @classmethod
    def start(cls, words: list[str], path: Path, *, stdin: int = subprocess.DEVNULL) -> Operator:
        """Run a command in the checkout, in a session of its own: a kill takes its children too."""
        began = time.monotonic()
        log = path / f".operator-{time.monotonic_ns()}.log"
        environment = {
            **os.environ, "PYTHONPATH": str(path), "PYINFRA_PROGRESS": "off",
            # Reports of these rollouts are none of the user's.
            "XDG_STATE_HOME": str(path / ".state"),
        }  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, cwd=path, env=environment, stdin=stdin, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, began)

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> bool:
        """Until it has said them; False when it ended without."""
        while words not in self.text:
            if self.process.poll() is not None:
                return words in self.text
            time.sleep(0.05)
        return True


def ended(operator: Operator) -> Done:
    """Wait for a command's end."""
    code = operator.process.wait(timeout=_LIMIT_SECONDS)
    seconds = time.monotonic() - operator.began_seconds
    return Done(None if code < 0 else code, operator.text, seconds)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
