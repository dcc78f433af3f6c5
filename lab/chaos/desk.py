"""The desk of a chore: run commands as two operators, and note their results."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lab import clones
from lab.chaos.fleet import FOLDER, NAME, UNIT, Fleet
from lab.chaos.operators import INVENTORY, Clone, Done, ended
from lab.chaos.wanted import GATEWAY_PORT, Keys
from lab.layout import GATEWAY

_ANSWER_SECONDS = 15
# Processes, units, keys and links: what serves, and what the next start would use.
_SERVER_STANDS = f"""set -e; systemctl show {UNIT} --property=MainPID; readlink {FOLDER}/current
sha256sum /etc/systemd/system/corral-* /etc/corral/keys/*"""
_GATEWAY_STANDS = """set -e; systemctl show haproxy --property=MainPID
readlink /etc/corral/gateway/current; sha256sum /etc/corral/gateway/current/*"""


@dataclass
class Desk:
    """A chore's fleet, and the results so far.

    + base, gateway: inventory keys of every instance and of the gateway at the beginning
    + commands: each command with its exit code; + verified: results of both clones, each time
    + problems: each difference from what was expected
    """

    fleet: Fleet
    base: Keys
    gateway: Keys
    commands: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def want(self, *, own: Mapping[int, Keys] | None = None, **instance: Any) -> None:
        """Change inventory keys of the servers, beside those at the beginning."""
        self.fleet.want({**self.base, **instance}, own=own, **self.gateway)

    def want_gateway(self, *, own: Mapping[int, Keys] | None = None, **gateway: Any) -> None:
        """Change inventory keys of the gateway; ``own``: of single servers."""
        self.fleet.want(self.base, own=own, **{**self.gateway, **gateway})

    def server(self, n: int) -> str:
        """The name of a server in commands."""
        return f"{self.fleet.layout.host_name(n)}/{NAME}"

    @property
    def servers(self) -> list[str]:
        """Names of all servers."""
        return [self.server(n) for n in self.fleet.numbers]

    def rollout(self, *arguments: str, code: int = 0, says: str = "") -> Done:
        """Run a rollout and judge its result."""
        done = ended(self.fleet.clone.start("rollout", *arguments))
        return self.judged("rollout", done, code=code, says=says)

    def rollout_of_gateway(self) -> Done:
        """Run a rollout of the gateway only."""
        return self.rollout("--limit", self.fleet.layout.host_name(GATEWAY))

    def decline(self) -> None:
        """Run a rollout and answer its question with no: nothing that serves may change."""
        with self.untouched():
            done = self.fleet.clone.declined_rollout()
            self.judged("rollout, declined", done, code=1, says="nothing was changed")

    def corral(self, *arguments: str, code: int = 0, says: str = "") -> Done:
        """Run another command of Corral and judge its result."""
        done = self.fleet.clone.corral(*arguments, "-i", INVENTORY)
        name = " ".join(one for one in arguments if one not in self.servers and one[0] != "-")
        return self.judged(name, done, code=code, says=says)

    def judged(self, name: str, done: Done, *, code: int = 0, says: str = "") -> Done:
        """Note a command, and a problem if its result is not the expected one."""
        self.commands.append(f"{name}: {done.code}")
        # Terminals and prefixes may break lines anywhere.
        if done.code != code or says not in " ".join(done.text.split()):
            wanted = f"{code} and {says!r}" if says else code
            self.problems.append(
                f"{name} ended with {done.code}, not {wanted}: {done.text[-1500:]}"
            )
        return done

    def second(self, **data: Any) -> Clone:
        """Make the other operator's clone; ``data``: host data that differs in it."""
        clones.copy(self.fleet.checkout.path, self.fleet.second, INVENTORY, **data)
        return Clone(self.fleet.second)

    def agree(self, *, green: bool = True, second: Clone | None = None) -> None:
        """Verify from both clones, with one store of keys; they must find the same."""
        ours = self.fleet.clone.findings()
        theirs = (second or self.second()).findings()
        if ours != theirs:
            self.problems.append(f"one clone verifies {_format(ours)}, the other {_format(theirs)}")
        elif green is bool(ours):
            self.problems.append(f"both clones verify {_format(ours)}")
        self.verified.append(f"both {_format(ours)}" if ours == theirs else "NOT THE SAME")

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Note a problem if a process, unit, key or configuration changes in the block."""
        before = self._standing()
        yield
        after = self._standing()
        changed = [name for name in before if before[name] != after[name]]
        self.problems += [
            f"{name} was touched: {before[name]} -> {after[name]}" for name in changed
        ]

    def _standing(self) -> dict[str, str]:
        asked = {**dict.fromkeys(self.fleet.numbers, _SERVER_STANDS), GATEWAY: _GATEWAY_STANDS}
        return {self.fleet.layout.host_name(n): self.fleet.on(n, look) for n, look in asked.items()}

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a problem unless they are equal."""
        if found != wanted:
            self.problems.append(f"{what}: {found}, not {wanted}")

    def status(self, key: str, port: int = GATEWAY_PORT) -> int:
        """Status of the gateway's answer to a client with this key; 0 without an answer."""
        url = f"http://{self.fleet.layout.address(GATEWAY)}:{port}/v1/models"
        request = Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - the lab's
        try:
            with urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - the lab's own
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except OSError:
            return 0

    def shows_certificate(self, name: str) -> bool:
        """Whether the gateway presents this one of `material.CERTIFICATES`."""
        address = (str(self.fleet.layout.address(GATEWAY)), GATEWAY_PORT)
        try:
            shown = ssl.get_server_certificate(address)
        except OSError:
            return False
        return shown in (self.fleet.checkout.path / name).read_text()

    def empty_store(self) -> Path:
        """An empty folder for keys; it is removed with the lab."""
        store = self.fleet.layout.state / "empty-keys"
        shutil.rmtree(store, ignore_errors=True)
        return store


def _format(findings: Sequence[str]) -> str:
    """The failed checks, each once."""
    checks = sorted({finding.rpartition(": ")[2] for finding in findings})
    return f"red ({', '.join(checks)})" if checks else "green"
