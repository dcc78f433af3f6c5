"""Stop or restart an instance behind gateways without failed requests: drain it first.

Gateways report which servers they have, so that no plan is needed to stop a running instance.
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
from corral.rollout.traffic import LEASE_SECONDS, PrintLine, renewed, returns_soon

# Two checks of a gateway, two seconds apart, notice whether a server is up.
_SEEN_SECONDS = 20
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Gateways:
    """Gateways in front of the instances of one inventory.

    + hosts: hosts with a gateway; + command: the operator's command, for next steps
    + force: requests may fail
    + may_have: whether a gateway that does not answer may be in front of a server, HOST/INSTANCE
    """

    hosts: tuple[Host, ...]
    command: str
    print_line: PrintLine
    force: bool = False
    may_have: Callable[[Host, str], bool] = lambda *_: True

    def refuse_last(self, servers: Sequence[str], *, together: bool) -> None:
        """Refuse to stop all serving members of an alias. Nothing is changed.

        + servers: each HOST/INSTANCE; + together: all are down at once, as by a stop
        Raises CorralError, also for a gateway that does not answer and may have one of them.
        """
        if self.force:
            return
        for gateway in self.hosts:
            rows = self._states(gateway, servers)
            for group in [servers] if together else [[one] for one in servers]:
                _refuse_group(gateway, rows, group, self._forced)

    @contextmanager
    def drained(self, server: str, limit_seconds: int) -> Iterator[DrainedServer]:
        """Drain a server (HOST/INSTANCE) at each gateway, and make it ready afterwards.

        + limit_seconds: for requests in flight. Raises CorralError where some remain, or where no
        other member serves its alias; then it was not touched.
        """
        drained = DrainedServer(server, self.print_line)
        has_ended = False
        try:
            with renewed(server, lambda: tuple(drained.taken), self.print_line):
                for gateway in self.hosts:
                    self._drain(gateway, drained, limit_seconds)
                yield drained
            has_ended = True
        finally:
            drained.release(also_found=has_ended)

    def after(self, server: str, *, limit_seconds: int | None = None) -> bool:
        """Report whether each gateway accepts a started server; returns whether all do.

        + limit_seconds: time to pass their checks; a few checks' time if None
        """
        limit = _SEEN_SECONDS if limit_seconds is None else limit_seconds
        answers = [self._accepts(gateway, server, limit) for gateway in self.hosts]
        return all(answers)

    @property
    def _forced(self) -> str:
        return f"`{self.command} --force`"

    def _states(self, gateway: Host, servers: Sequence[str]) -> list[ServerState]:
        """Its servers; empty for a gateway that does not answer and cannot have ``servers``."""
        try:
            return control.state(gateway)
        except CorralError as error:
            own = [server for server in servers if self.may_have(gateway, server)]
            if not own:
                names = " and ".join(servers)
                self.print_line(f"{gateway.name} does not answer, and has no {names}: {error.what}")
                return []
            what = (
                f"{error.what}, so it is unknown whether requests would fail without {own[0]}; "
                "nothing was stopped"
            )
            raise CorralError(gateway.name, what, f"fix that, or run {self._forced}") from error

    def _drain(self, gateway: Host, drained: DrainedServer, limit: int) -> None:
        try:
            own = control.of_server(self._states(gateway, [drained.server]), drained.server)
            # Includes a server whose checks fail: they may pass again just before it stops.
            is_open = any(row.open for row in own)
            if not is_open and not any(map(returns_soon, own)):
                return
            drained.taken.append(gateway)
            if not is_open:
                drained.found.append(gateway)
            if any(row.serves for row in own):
                drained.served.append(gateway)
            found = control.drain(
                gateway, drained.server, LEASE_SECONDS, limit_seconds=limit, last=self.force
            )
        except CorralError as error:
            if not self.force:
                step = f"make another one ready first, or run {self._forced}"
                raise CorralError(error.where, error.what, step) from error
            self.print_line(f"{drained.server} is not drained: {error.what}")
            return
        if found.sessions_left and not self.force:
            what = (
                f"{found.sessions_left} requests by way of {gateway.name} were still in flight "
                f"after {limit} s; it was not stopped"
            )
            step = f"try again at a quieter time, or run {self._forced}"
            raise CorralError(drained.server, what, step)
        self.print_line(f"{gateway.name}: {drained.server} is drained after {found.seconds:.1f} s")

    def _accepts(self, gateway: Host, server: str, limit_seconds: int) -> bool:
        try:
            own = _wait(gateway, server, up=True, limit_seconds=limit_seconds)
        except CorralError as error:
            self.print_line(f"{gateway.name}: {error.what}")
            return not self.may_have(gateway, server)
        if not own or any(row.up and row.admin == "ready" for row in own):
            return True
        row = own[0]
        if row.admin == "ready":
            self.print_line(f"{gateway.name}: {server} does not pass its checks: {row.check}")
            return False
        until = f" until {row.until}" if row.until else ""
        ready = f"`corral gateway ready {server}` ends the drain"
        self.print_line(f"{gateway.name}: {server} is drained{until}: {ready}")
        return True


@dataclass(frozen=True)
class DrainedServer:
    """A drained server.

    + taken: gateways that drain it, in order; + served: those of them at which it got requests
    + found: those at which it was drained already, by a lease that ends soon
    """

    server: str
    print_line: PrintLine
    taken: list[Host] = field(default_factory=list)
    served: list[Host] = field(default_factory=list)
    found: list[Host] = field(default_factory=list)

    def stays_down(self) -> None:
        """Wait until its gateways notice that it is down; others keep their drain's lease."""
        for gateway in tuple(self.taken):
            with suppress(CorralError):
                seen = _wait(gateway, self.server, up=False, limit_seconds=_SEEN_SECONDS)
                if any(row.up for row in seen):
                    self.taken.remove(gateway)

    def leave(self) -> None:
        """Keep its drains until their leases end: it may not serve yet."""
        for gateway in self.taken:
            self.print_line(
                f"{gateway.name} sends {self.server} requests again within {LEASE_SECONDS} s"
            )
        self.taken.clear()

    def release(self, *, also_found: bool) -> None:
        """End the drain at its gateways. One that is cut off ends it by its lease.

        + also_found: those of ``found``, too. After a failure they keep their lease: the drain may
        be of somebody who changes this server now, which is why a host refuses another change.
        """
        for gateway in self.taken if also_found else [g for g in self.taken if g not in self.found]:
            try:
                control.release(gateway, self.server)
            except CorralError as error:
                ends = f"{gateway.name} sends it requests again within {LEASE_SECONDS} s"
                self.print_line(f"{self.server}: {error.what}; {ends}")


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
            step = f"make another one ready first (see `corral gateway status`), or run {forced}"
            raise CorralError(names, what, step)


def _wait(gateway: Host, server: str, *, up: bool, limit_seconds: int) -> list[ServerState]:
    """The states of a server once checks agree with ``up``, or at the limit; empty if unknown.

    Raises CorralError.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        own = control.of_server(control.state(gateway), server)
        if not own or any(row.up for row in own) is up or time.monotonic() > deadline:
            return own
        time.sleep(_PAUSE_SECONDS)
