"""Stop or restart an instance behind gateways so that no request fails: they are drained first.

Gateways are asked which servers they have: no plan is needed to stop what runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from corral_shared.gateway_lines import base

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import ServerState
from corral.inventory.hosts import Host
from corral.plan.gateway import server_name
from corral.rollout.traffic import LEASE_SECONDS, Say, renewed

# A gateway's checks see within two of them, two seconds apart, whether a server is up.
_SEEN_SECONDS = 20
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Gateways:
    """Those in front of instances of one inventory.

    + hosts: gateways alone; + command: what was typed, for who has to type it again
    + force: the operator's word that requests may fail
    + may_have: whether a gateway that does not answer may be in front of a server, HOST/INSTANCE
    """

    hosts: tuple[Host, ...]
    command: str
    say: Say
    force: bool = False
    may_have: Callable[[Host, str], bool] = lambda *_: True

    def refuse_last(self, servers: Sequence[str], *, together: bool) -> None:
        """Refuse to take away all servers of an alias that serve. Nothing is changed.

        + servers: each HOST/INSTANCE; + together: all of them are away at once, as by a stop
        Raises CorralError, also for a gateway that does not answer and may have one of them.
        """
        if self.force:
            return
        for gateway in self.hosts:
            rows = self._asked(gateway, servers)
            for group in [servers] if together else [[one] for one in servers]:
                _refuse_group(gateway, rows, group, self._forced)

    @contextmanager
    def away(self, server: str, limit_seconds: int) -> Iterator[Away]:
        """Drain a server (HOST/INSTANCE) at each gateway, and bring it back afterwards.

        + limit_seconds: for requests in flight. Raises CorralError where some are left, or where
        nobody else serves its alias; then it was not touched.
        """
        away = Away(server, self.say)
        try:
            with renewed(server, lambda: tuple(away.taken), self.say):
                for gateway in self.hosts:
                    self._drain(gateway, away, limit_seconds)
                yield away
        finally:
            away.give_back()

    def after(self, server: str) -> bool:
        """Tell what each gateway sends a started server; gives whether none refuses it."""
        answers = [self._takes(gateway, server) for gateway in self.hosts]
        return all(answers)

    @property
    def _forced(self) -> str:
        return f"`{self.command} --force`"

    def _asked(self, gateway: Host, servers: Sequence[str]) -> list[ServerState]:
        """Its servers; none of one that does not answer, and has none of these either."""
        try:
            return control.state(gateway)
        except CorralError as error:
            own = [server for server in servers if self.may_have(gateway, server)]
            if not own:
                names = " and ".join(servers)
                self.say(f"{gateway.name} does not answer, and has no {names}: {error.what}")
                return []
            what = (
                f"{error.what}, so nobody knows whether requests would fail without {own[0]}; "
                "nothing was stopped"
            )
            raise CorralError(gateway.name, what, f"fix that, or {self._forced}") from error

    def _drain(self, gateway: Host, away: Away, limit: int) -> None:
        try:
            own = control.of_server(self._asked(gateway, [away.server]), away.server)
            # Also one whose checks fail: they may pass again a moment before it stops.
            if not any(row.open for row in own):
                return
            away.taken.append(gateway)
            found = control.drain(
                gateway, away.server, LEASE_SECONDS, limit_seconds=limit, last=self.force
            )
        except CorralError as error:
            if not self.force:
                step = f"bring another one back, or {self._forced}"
                raise CorralError(error.where, error.what, step) from error
            self.say(f"{away.server} is not drained: {error.what}")
            return
        if found.sessions_left and not self.force:
            what = (
                f"{found.sessions_left} requests by way of {gateway.name} were still in flight "
                f"after {limit} s; it was not stopped"
            )
            step = f"try again at a quieter time, or {self._forced}"
            raise CorralError(away.server, what, step)
        self.say(f"{gateway.name}: {away.server} is drained after {found.seconds:.1f} s")

    def _takes(self, gateway: Host, server: str) -> bool:
        try:
            own = _wait(gateway, server, up=True)
        except CorralError as error:
            self.say(f"{gateway.name}: {error.what}")
            return not self.may_have(gateway, server)
        if not own or any(row.up and row.admin == "ready" for row in own):
            return True
        row = own[0]
        if row.admin == "ready":
            self.say(f"{gateway.name}: {server} does not pass its checks: {row.check}")
            return False
        until = f" until {row.until}" if row.until else ""
        again = f"`corral gateway ready {server}` brings it back"
        self.say(f"{gateway.name}: {server} is drained{until}: {again}")
        return True


@dataclass(frozen=True)
class Away:
    """A server that gets no requests. ``taken``: gateways that were told so, in order."""

    server: str
    say: Say
    taken: list[Host] = field(default_factory=list)

    def stays_down(self) -> None:
        """Wait until its gateways see that it is down; one that does not goes on with its lease."""
        for gateway in tuple(self.taken):
            with suppress(CorralError):
                if any(row.up for row in _wait(gateway, self.server, up=False)):
                    self.taken.remove(gateway)

    def leave(self) -> None:
        """Give it no requests for as long as its leases last: it may not serve yet."""
        for gateway in self.taken:
            self.say(f"{gateway.name} sends {self.server} requests again within {LEASE_SECONDS} s")
        self.taken.clear()

    def give_back(self) -> None:
        """Let its gateways judge by their checks again. One that is cut off does so by itself."""
        for gateway in self.taken:
            try:
                control.release(gateway, self.server)
            except CorralError as error:
                ends = f"{gateway.name} sends it requests again within {LEASE_SECONDS} s"
                self.say(f"{self.server}: {error.what}; {ends}")


def _refuse_group(
    gateway: Host, rows: Sequence[ServerState], group: Sequence[str], forced: str
) -> None:
    own = {server_name(name): name for name in group}
    for alias in {row.pool for row in rows if base(row.server) in own and row.serves}:
        serving = {base(row.server) for row in rows if row.pool == alias and row.serves}
        if serving <= own.keys():
            names = " and ".join(sorted(own[one] for one in serving))
            one = len(serving) == 1
            who, do = ("is the last server", "serves") if one else ("are the last servers", "serve")
            what = f"{who} of {alias} at {gateway.name} that {do}; nothing was stopped"
            step = f"bring another one back (`corral gateway status` lists them), or {forced}"
            raise CorralError(names, what, step)


def _wait(gateway: Host, server: str, *, up: bool) -> list[ServerState]:
    """Its rows once checks see it as ``up`` says, or at the limit; none where it is not behind.

    Raises CorralError.
    """
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        own = control.of_server(control.state(gateway), server)
        if not own or any(row.up for row in own) is up or time.monotonic() > deadline:
            return own
        time.sleep(_PAUSE_SECONDS)
