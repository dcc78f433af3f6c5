"""The fleet of the hard day, in a checkout and a lab of its own, and the commands used on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab import ssh
from lab.chaos import material, tally
from lab.chaos.wanted import GATEWAY_PORT, Wanted, want
from lab.layout import GATEWAY, Layout
from lab.scratch_checkout import ScratchCheckout

INVENTORY = "lab/chaos/inventory.py"
NAME, UNIT, PORT, ALIAS = "tiny", "corral-tiny.service", 8001, "tiny-glm-moe"
FOLDER = f"/var/lib/corral/instances/{NAME}"
_LIMIT_SECONDS = 900

By = Literal["rollout", "deploy"]


@dataclass(frozen=True)
class Done:
    """A command of the operator that ended; exit code None when it was killed."""

    code: int | None
    text: str
    seconds: float


@dataclass(frozen=True)
class Fleet:
    """Servers ``numbers`` of the lab in ``checkout``, with the gateway or without."""

    checkout: ScratchCheckout
    numbers: tuple[int, ...]
    has_gateway: bool

    @classmethod
    def make(cls, *, servers: int, gateway: bool) -> Fleet:
        """Boot the hosts and bring everything that scenarios change to within their reach."""
        checkout = ScratchCheckout.make("chaos")
        fleet = cls(checkout, tuple(range(1, servers + 1)), gateway)
        checkout.run("corral", "lab", "down")
        words = ["--gateway"] if gateway else []
        checkout.run("corral", "lab", "up", "--hosts", str(servers), *words)
        material.provide(checkout, INVENTORY)
        return fleet

    @property
    def layout(self) -> Layout:
        """Names, addresses and folders of its lab."""
        return self.checkout.layout

    def remove(self) -> None:
        """Put the lab and its files away."""
        self.checkout.remove()

    def want(self, instance: dict[str, Any]) -> None:
        """What the next command shall bring every server to."""
        want(self.layout, Wanted(instance))

    def deploy(self) -> Done:
        """The plain command, to its end."""
        return ended(self.start("deploy"))

    def start(self, by: By, *words: str) -> Operator:
        """Begin a rollout or a deploy of what is wanted."""
        commands = {
            "rollout": [_program("corral"), "rollout", INVENTORY, "-y"],
            "deploy": [_program("pyinfra"), INVENTORY, "deploy.py", "-y"],
        }
        return Operator.start([*commands[by], *words], self.checkout.path)

    def corral(self, *words: str) -> Done:
        """Another command of Corral's, to its end."""
        return ended(Operator.start([_program("corral"), *words], self.checkout.path))

    def plan(self, n: int) -> dict[str, Any]:
        """What Corral plans for a server with what is wanted now."""
        words = ("plan", self.layout.host_name(n), "--json", "-i", INVENTORY)
        planned: dict[str, Any] = json.loads(self.checkout.run("corral", *words))
        return planned

    def on(self, n: int, script: str) -> str:
        """Output of a script on a host, by plain ssh and not through Corral; it must succeed."""
        return ssh.run_on(self.layout, n, script).strip()

    def try_on(self, n: int, script: str, seconds: float = 20) -> str | None:
        """The same; None when it fails, or the host does not answer in time."""
        argv = ssh.command(self.layout, n, script)
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def key_file(self, n: int) -> Path:
        """The controller's key file of a server's instance."""
        return self.layout.keys / self.layout.host_name(n) / NAME

    def url(self, n: int) -> str:
        """Where server n answers its own clients."""
        return f"http://{self.layout.address(n)}:{PORT}"

    @contextmanager
    def load(self, out: Path, *, server: int | None = None) -> Iterator[None]:
        """Requests at a steady rate while the block runs: to one server, or to the gateway."""
        if server is None:
            url = f"http://{self.layout.address(GATEWAY)}:{GATEWAY_PORT}"
            key_file = self.layout.keys / self.layout.host_name(GATEWAY) / f"gateway-{ALIAS}"
        else:
            url, key_file = self.url(server), self.key_file(server)
        program = [sys.executable, "-m", "lab.chaos.load", "--url", url, "--model", ALIAS]
        words = [*program, "--key-file", str(key_file), "--out", str(out)]
        process = subprocess.Popen(words, cwd=self.checkout.path)
        try:
            _wait_for_a_good_reply(out, process)
            yield
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class Operator:
    """A command that an operator typed, while it runs. Its words go to a file."""

    process: subprocess.Popen[bytes]
    log: Path
    began_seconds: float

    @classmethod
    def start(cls, words: list[str], path: Path) -> Operator:
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
                words, cwd=path, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, began)


def ended(operator: Operator) -> Done:
    """Wait for a command's end."""
    code = operator.process.wait(timeout=_LIMIT_SECONDS)
    text = operator.log.read_text(errors="replace")
    return Done(None if code < 0 else code, text, time.monotonic() - operator.began_seconds)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _wait_for_a_good_reply(out: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        replies = tally.read(out) if out.exists() else []
        if any(reply.outcome is tally.Outcome.GOOD for reply in replies):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the load got no good reply: {replies[-3:]}")
        time.sleep(0.1)
