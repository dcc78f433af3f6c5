"""The fleet of the hard day, in a checkout and a lab of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import ssh
from lab.chaos import material, tally
from lab.chaos.operators import INVENTORY, Clone
from lab.chaos.wanted import GATEWAY_PORT, Keys, Wanted, want
from lab.layout import GATEWAY, Layout
from lab.scratch_checkout import ScratchCheckout

NAME, UNIT, PORT, ALIAS = "tiny", "corral-tiny.service", 8001, "tiny-glm-moe"
FOLDER = f"/var/lib/corral/instances/{NAME}"


@dataclass(frozen=True)
class Fleet:
    """Servers ``numbers`` of the lab in ``checkout``, with the gateway or without.

    ``hosts``: keys of hosts themselves that their inventory data has beside the usual ones
    """

    checkout: ScratchCheckout
    numbers: tuple[int, ...]
    has_gateway: bool
    hosts: Mapping[int, Keys] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        *,
        servers: int,
        gateway: bool,
        purpose: str = "chaos",
        hosts: Callable[[Layout], Mapping[int, Keys]] = lambda _: {},
    ) -> Fleet:
        """Boot the hosts and add all engines, models and certificates that scenarios need.

        + purpose: part of the path of its checkout; + hosts: from the layout, see the class
        """
        checkout = ScratchCheckout.make(purpose)
        numbers = tuple(range(1, servers + 1))
        fleet = cls(checkout, numbers, gateway, hosts(checkout.layout))
        checkout.run("corral", "lab", "down")
        options = ["--gateway"] if gateway else []
        checkout.run("corral", "lab", "up", "--hosts", str(servers), *options)
        checkout.use_cached_releases()
        material.provide(checkout, INVENTORY)
        return fleet

    @property
    def layout(self) -> Layout:
        """Names, addresses and folders of its lab."""
        return self.checkout.layout

    def remove(self) -> None:
        """Remove the lab, its files and the second clone."""
        self.checkout.remove()
        shutil.rmtree(self.second, ignore_errors=True)

    @property
    def second(self) -> Path:
        """Path of a second operator's clone, if one was made."""
        return self.checkout.path.with_name(f"{self.checkout.path.name}-second")

    @property
    def clone(self) -> Clone:
        """The clone in which its operator runs commands."""
        return Clone(self.checkout.path)

    def want(
        self, instance: Keys, *, own: Mapping[int, Keys] | None = None, **gateway: Any
    ) -> None:
        """Write the inventory keys of every server and of the gateway for the next command.

        + own: keys of single servers, by number; + gateway: beside the keys that it always has
        """
        named = {self.layout.host_name(n): keys for n, keys in (own or {}).items()}
        hosts = {self.layout.host_name(n): keys for n, keys in self.hosts.items()}
        want(self.layout, Wanted(instance, named, gateway, hosts))

    def plan(self, n: int) -> dict[str, Any]:
        """Corral's plan of a server with the current inventory keys."""
        command = ("plan", self.layout.host_name(n), "--json", "-i", INVENTORY)
        planned: dict[str, Any] = json.loads(self.checkout.run("corral", *command))
        return planned

    def on(self, n: int, script: str) -> str:
        """Output of a script on a host, by plain ssh and not through Corral; it must succeed."""
        return ssh.run_on(self.layout, n, script).strip()

    def try_on(self, n: int, script: str, seconds: float = 20) -> str | None:
        """Output of a script on a host; None if it fails or the host does not answer in time."""
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
        """Address at which server n answers its own clients."""
        return f"http://{self.layout.address(n)}:{PORT}"

    def gateway_url(self, *, tls: bool = False) -> str:
        """Address at which the gateway answers clients of the alias."""
        return f"http{'s' * tls}://{self.layout.address(GATEWAY)}:{GATEWAY_PORT}"

    def gateway_keys(self, name: str) -> Path:
        """One of the gateway's key files on the controller."""
        return self.layout.keys / self.layout.host_name(GATEWAY) / name

    @contextmanager
    def load(self, out: Path, *, server: int | None = None, tls: bool = False) -> Iterator[None]:
        """Send requests at a steady rate during the block, to one server or to the gateway.

        + tls: the gateway uses TLS, with one of `material.CERTIFICATES`
        """
        if server is None:
            url, key_file = self.gateway_url(tls=tls), self.gateway_keys(f"gateway-{ALIAS}")
        else:
            url, key_file = self.url(server), self.key_file(server)
        program = [sys.executable, "-m", "lab.chaos.load", "--url", url, "--model", ALIAS]
        command = [*program, "--key-file", str(key_file), "--out", str(out)]
        command += ["--trusted", material.TRUSTED] if tls else []
        process = subprocess.Popen(command, cwd=self.checkout.path)
        try:
            _wait_for_a_good_reply(out, process)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait_for_a_good_reply(out: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        replies = tally.read(out) if out.exists() else []
        if any(reply.outcome is tally.Outcome.GOOD for reply in replies):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the load got no good reply: {replies[-3:]}")
        time.sleep(0.1)
