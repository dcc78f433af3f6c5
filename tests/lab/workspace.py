"""A copy of the checkout with a lab of its own, and commands for tests in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from lab.edits import edited
from lab.faults import Rule, faults
from lab.layout import Layout
from tests.lab import evidence


class Done(subprocess.CompletedProcess[str]):
    """A command that ended; it is shown by the message that matters, in what a log may keep."""

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str]) -> Done:
        """What subprocess.run returns for it."""
        return cls(done.args, done.returncode, done.stdout, done.stderr)

    def __repr__(self) -> str:
        text = " ".join((self.stdout + (self.stderr or "")).split())
        next_step = text.rfind("Next:")
        end = len(text) if next_step < 0 else next_step + 60
        return f"<exit code {self.returncode}: {text[max(0, end - 200) : end]}>"


# With a cold compiler cache both engines are compiled, one after the other.
_LIMIT_SECONDS = 3000

CHECKOUT = Path(__file__).resolve().parents[2]
_PATH = Path(gettempdir()) / f"corral-tests-{Layout.of(CHECKOUT).lab_id}"


@dataclass(frozen=True)
class Workspace:
    """Commands run in ``path`` with its own code; its lab is not the checkout's."""

    path: Path

    @classmethod
    def make(cls) -> Workspace:
        """Copy what git tracks or would add. The path is fixed, so leftovers of a killed run go.

        Each worker of pytest-xdist has another path, and so another lab.
        """
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        path = Path(f"{_PATH}-{worker}") if worker else _PATH
        shutil.rmtree(path, ignore_errors=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, cwd=CHECKOUT, check=True, capture_output=True, text=True)
        for name in filter(None, done.stdout.split("\0")):
            if (CHECKOUT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, path / name)
        return cls(path)

    @classmethod
    def of_workers(cls) -> list[Workspace]:
        """Workspaces that pytest-xdist's workers made."""
        return [cls(path) for path in _PATH.parent.glob(f"{_PATH.name}-gw*") if path.is_dir()]

    @property
    def layout(self) -> Layout:
        """Names, addresses and folders of this workspace's lab."""
        return Layout.of(self.path)

    def corral(self, *arguments: str, stdin: str = "") -> Done:
        """Run `corral`; the caller judges the exit code."""
        return self._run([self._program("corral"), *arguments], stdin)

    def deploy(
        self, *arguments: str, inventory: str = "inventories/lab.py", stages: str = "deploy.py"
    ) -> Done:
        """Run the deploy as a user does; the caller judges the exit code."""
        return self._run([self._program("pyinfra"), inventory, stages, "-y", *arguments])

    def start_deploy(
        self, *arguments: str, inventory: str = "inventories/lab.py"
    ) -> subprocess.Popen[str]:
        """Start the deploy in the background, for tests that kill it; both streams are joined."""
        command = [self._program("pyinfra"), inventory, "deploy.py", "-y", *arguments]
        return subprocess.Popen(
            command, cwd=self.path, env=self._environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start_corral(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Run `corral` in the background; the caller ends it. Both streams go to ``log``.

        It leads a group of processes, as where a shell starts it.
        """
        with log.open("wb") as output:
            # Programs in a shell's background ignore SIGINT, and what they start does, too.
            command = ["env", "--default-signal=INT", self._program("corral"), *arguments]
            return subprocess.Popen(
                command, cwd=self.path, env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def on(self, host: str, script: str) -> str:
        """Output of a script on a lab host, by plain ssh: not through Corral. Must succeed."""
        done = self.try_on(host, script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def try_on(self, host: str, script: str) -> Done:
        """Run a script on a lab host; the caller judges the exit code."""
        return self._run(["ssh", "-F", str(self.layout.ssh_config), host, script])

    def pid(self, host: str, instance: str) -> int:
        """Main process of an instance, as systemd says; 0 when it does not run."""
        return int(self.on(host, f"systemctl show corral-{instance} -P MainPID"))

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """Replace text in a file of the workspace until the block ends."""
        with edited(self.path / name, old, new):
            yield

    @contextmanager
    def hub_faults(self, *rules: Rule) -> Iterator[None]:
        """Switch faults of the stand-in hub on until the block ends."""
        with faults(self.layout.hub, *rules):
            yield

    def _program(self, name: str) -> str:
        return str(Path(sys.executable).with_name(name))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.path), "PYINFRA_PROGRESS": "off"}

    def _run(self, command: list[str], stdin: str = "") -> Done:
        done = subprocess.run(
            command, cwd=self.path, env=self._environment(), text=True, check=False,
            input=stdin, capture_output=True, timeout=_LIMIT_SECONDS,
        )  # fmt: skip
        evidence.note(done)
        return Done.of(done)
