"""Commands of operators, each in a clone of the project, and their results."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

INVENTORY = "lab/chaos/inventory.py"
_LIMIT_SECONDS = 900
_QUESTION = "Change them?"

By = Literal["rollout", "deploy"]


@dataclass(frozen=True)
class Done:
    """A command of an operator that has ended; the exit code is None if it was killed."""

    code: int | None
    text: str
    seconds: float


@dataclass(frozen=True)
class Clone:
    """A clone of the project, in which an operator runs commands."""

    path: Path

    def deploy(self) -> Done:
        """Run the plain deploy to its end."""
        return ended(self.start("deploy"))

    def start(self, by: By, *arguments: str) -> Operator:
        """Start a rollout or a deploy."""
        commands = {
            "rollout": [_program("corral"), "rollout", INVENTORY, "-y"],
            "deploy": [_program("pyinfra"), INVENTORY, "deploy.py", "-y"],
        }
        return Operator.start([*commands[by], *arguments], self.path)

    def corral(self, *arguments: str) -> Done:
        """Run another command of Corral to its end."""
        return ended(Operator.start([_program("corral"), *arguments], self.path))

    def declined_rollout(self) -> Done:
        """Run a rollout at a terminal, and answer its question with no."""
        with self.asking_rollout() as (operator, terminal):
            os.write(terminal, b"n\n")
            return ended(operator)

    @contextmanager
    def asking_rollout(self) -> Iterator[tuple[Operator, int]]:
        """A rollout at a terminal that has staged everything and asks whether to go on.

        Yields it with the descriptor on which it reads its answer.
        """
        ours, theirs = pty.openpty()
        try:
            command = [_program("corral"), "rollout", INVENTORY]
            operator = Operator.start(command, self.path, stdin=theirs)
            operator.wait_for(_QUESTION)
            yield operator, ours
        finally:
            os.close(ours)
            os.close(theirs)

    def findings(self) -> tuple[str, ...]:
        """What `corral verify` finds wrong, as HOST/INSTANCE: CHECK."""
        done = self.corral("verify", "--json", "-i", INVENTORY)
        try:
            # Advice follows the document.
            answer, _ = json.JSONDecoder().raw_decode(done.text)
        except ValueError:
            return (done.text,)
        rows = [(host, row) for host, rows in answer["checks"].items() for row in rows]
        found = {f"{host}/{row['instance']}: {row['check']}" for host, row in rows if not row["ok"]}
        return tuple(sorted(found)) or (() if done.code == 0 else (f"exit code {done.code}",))


@dataclass(frozen=True)
class Operator:
    """A running command of an operator, with its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path
    began_seconds: float

    @classmethod
    def start(cls, command: list[str], path: Path, *, stdin: int = subprocess.DEVNULL) -> Operator:
        """Start a command in its own session, so that a kill also ends its children."""
        began = time.monotonic()
        log = path / f".operator-{time.monotonic_ns()}.log"
        environment = {
            **os.environ, "PYTHONPATH": str(path), "PYINFRA_PROGRESS": "off",
            # Keep reports of these rollouts apart from the user's.
            "XDG_STATE_HOME": str(path / ".state"),
        }  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=path, env=environment, stdin=stdin, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, began)

    @property
    def text(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> bool:
        """Wait until the output has this text; False if the command ended without it."""
        while text not in self.text:
            if self.process.poll() is not None:
                return text in self.text
            time.sleep(0.05)
        return True


def ended(operator: Operator) -> Done:
    """Wait for a command's end."""
    code = operator.process.wait(timeout=_LIMIT_SECONDS)
    seconds = time.monotonic() - operator.began_seconds
    return Done(None if code < 0 else code, operator.text, seconds)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
