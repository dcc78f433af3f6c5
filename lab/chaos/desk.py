"""Where chores of the second day are done: commands of two operators, and what came of them."""

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
# What serves, as who, with which keys, and what the next start would use.
_SERVER_STANDS = f"""set -e; systemctl show {UNIT} --property=MainPID; readlink {FOLDER}/current
sha256sum /etc/systemd/system/corral-* /etc/corral/keys/*"""
_GATEWAY_STANDS = """set -e; systemctl show haproxy --property=MainPID
readlink /etc/corral/gateway/current; sha256sum /etc/corral/gateway/current/*"""


@dataclass
class Desk:
    """A chore's fleet, and what was seen of it.

    + base, gateway: keys of every instance and of the gateway that it began with
    + commands: what was typed, with its exit code; + verified: what both clones said, each time
    + problems: what was not as it must be
    """

    fleet: Fleet
    base: Keys
    gateway: Keys
    commands: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def want(self, *, own: Mapping[int, Keys] | None = None, **instance: Any) -> None:
        """What is wanted of the servers now, beside what they began with."""
        self.fleet.want({**self.base, **instance}, own=own, **self.gateway)

    def want_gateway(self, *, own: Mapping[int, Keys] | None = None, **gateway: Any) -> None:
        """The same of the gateway; ``own``: of single servers."""
        self.fleet.want(self.base, own=own, **{**self.gateway, **gateway})

    def server(self, n: int) -> str:
        """As commands name it."""
        return f"{self.fleet.layout.host_name(n)}/{NAME}"

    @property
    def servers(self) -> list[str]:
        """All."""
        return [self.server(n) for n in self.fleet.numbers]

    def rollout(self, *words: str, code: int = 0, says: str = "") -> Done:
        """Type it and judge how it ended."""
        done = ended(self.fleet.clone.start("rollout", *words))
        return self.judged("rollout", done, code=code, says=says)

    def rollout_of_gateway(self) -> Done:
        """Of the gateway alone."""
        return self.rollout("--limit", self.fleet.layout.host_name(GATEWAY))

    def decline(self) -> None:
        """A rollout whose question is answered with no: whatever serves stays as it is."""
        with self.untouched():
            done = self.fleet.clone.declined_rollout()
            self.judged("rollout, declined", done, code=1, says="nothing was changed")

    def corral(self, *words: str, code: int = 0, says: str = "") -> Done:
        """Another command of Corral's."""
        done = self.fleet.clone.corral(*words, "-i", INVENTORY)
        name = " ".join(word for word in words if word not in self.servers and word[0] != "-")
        return self.judged(name, done, code=code, says=says)

    def judged(self, name: str, done: Done, *, code: int = 0, says: str = "") -> Done:
        """Note a command and what is wrong about its end."""
        self.commands.append(f"{name}: {done.code}")
        # Terminals and prefixes break lines at will.
        if done.code != code or says not in " ".join(done.text.split()):
            wanted = f"{code} and {says!r}" if says else code
            self.problems.append(
                f"{name} ended with {done.code}, not {wanted}: {done.text[-1500:]}"
            )
        return done

    def second(self, **data: Any) -> Clone:
        """The other operator's clone, as new; ``data``: host data that it has otherwise."""
        clones.copy(self.fleet.checkout.path, self.fleet.second, INVENTORY, **data)
        return Clone(self.fleet.second)

    def agree(self, *, green: bool = True, second: Clone | None = None) -> None:
        """Both clones verify, with one store of keys, and say the same."""
        ours = self.fleet.clone.findings()
        theirs = (second or self.second()).findings()
        if ours != theirs:
            self.problems.append(f"one clone verifies {_words(ours)}, the other {_words(theirs)}")
        elif green is bool(ours):
            self.problems.append(f"both clones verify {_words(ours)}")
        self.verified.append(f"both {_words(ours)}" if ours == theirs else "NOT THE SAME")

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """No process, unit, key or configuration changes in the block."""
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
        """Of the gateway's answer to a client with this key; 0 without one."""
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
        """Whether the gateway shows this one of `material.CERTIFICATES`."""
        address = (str(self.fleet.layout.address(GATEWAY)), GATEWAY_PORT)
        try:
            shown = ssl.get_server_certificate(address)
        except OSError:
            return False
        return shown in (self.fleet.checkout.path / name).read_text()

    def empty_store(self) -> Path:
        """A folder for keys in which nothing is; it goes with the lab."""
        store = self.fleet.layout.state / "empty-keys"
        shutil.rmtree(store, ignore_errors=True)
        return store


def _words(findings: Sequence[str]) -> str:
    """Which checks failed, each once."""
    checks = sorted({finding.rpartition(": ")[2] for finding in findings})
    return f"red ({', '.join(checks)})" if checks else "green"
