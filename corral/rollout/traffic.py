"""Gateways of an inventory during activations: drains, and servers that move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from corral.errors import CorralError
from corral.gateway import control, moves
from corral.gateway.change import refuse_lost_keys
from corral.gateway.control import Installed, ServerState
from corral.gateway.moves import Place
from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan, server_name
from corral.plan.instance import InstancePlan
from corral.planning.fleet import FleetPlan
from corral.planning.gateways import gateways_of, instance_keys
from corral.remote.repeating import repeated
from corral.remote.unreached import UnreachedError
from corral.rollout.activation import NoGateway, Traffic
from corral.store.api_keys import KeyFile

# Lease of a drain: after it a gateway sends requests again, so that a controller that died does not
# keep a server drained. The controller renews it.
LEASE_SECONDS = 60
_RENEW_SECONDS = 15

PrintLine = Callable[[str], None]


def returns_soon(row: ServerState) -> bool:
    """Whether its drain ends within a lease, as that of a command that was killed a moment ago.

    In the middle of a change it would get requests again. A longer drain is an operator's own.
    """
    left = row.lease_seconds
    return row.admin == "drain" and left is not None and left <= LEASE_SECONDS


def traffic(fleet: FleetPlan, print_line: PrintLine) -> Traffic:
    """The traffic control of a fleet.

    + print_line: called with failures of gateways
    """
    return Gateways(fleet.everyone, fleet.gateways, print_line) if fleet.gateways else NoGateway()


def unplanned_traffic(hosts: Sequence[Host], print_line: PrintLine) -> Traffic:
    """Traffic control without gateway plans: gateways report which servers they have."""
    found = any(host.data.get("gateway") for host in hosts)
    return UnplannedGateways(tuple(hosts), {}, print_line) if found else NoGateway()


def key_of(fleet: FleetPlan) -> Callable[[Host, str], KeyFile]:
    """A function that returns the keys of an instance, those of its gateways included."""
    return lambda host, instance: instance_keys(
        host, instance, fleet.everyone, fleet.gateways_of(host)
    )


@dataclass(frozen=True)
class Standing:
    """The standing of a server at a gateway.

    + open: it gets requests while its checks pass, now or soon; + serves: it gets requests now
    + others: another server of its alias serves
    """

    open: bool
    serves: bool
    others: bool


@dataclass(frozen=True)
class Taken:
    """A drain while a server changes; ``served``: the server got requests before."""

    gateway: Host
    served: bool


@dataclass(frozen=True)
class Gateways:
    """All gateways of an inventory."""

    hosts: tuple[Host, ...]
    plans: Mapping[str, GatewayPlan]
    print_line: PrintLine

    @contextmanager
    def drained(self, server: str, instance: InstancePlan) -> Iterator[bool]:
        """Drain ``server`` (HOST/INSTANCE) within the block; False where it cannot be drained.

        It cannot where no other server serves its alias, or a gateway does not answer: then the
        host handles its clients. Gateways send requests again afterwards in any case.
        Raises CorralError for a changed server that does not pass the checks of a gateway.
        """
        taken: list[Taken] = []
        wanted = instance.activation.how != "side-by-side"
        failing: list[str] = []
        try:
            with renewed(server, lambda: [one.gateway for one in taken], self.print_line):
                yield wanted and self._take(server, instance, taken)
        finally:
            failing += self._release(taken, server)
        if failing:
            what = f"{server} no longer passes this gateway's checks"
            step = f"run `corral verify {failing[0]}`, then `corral logs {server}`"
            raise CorralError(failing[0], what, step)

    def expect(self, server: str, place: Place) -> bool:
        """Add the new place of ``server`` to its gateways.

        Returns whether it moves; otherwise ``keep`` is not needed. Raises CorralError.
        """
        moving = False
        for gateway in self._affected(server, place):
            now = self._installed(gateway, server)
            if now is None:
                # ``keep`` tries again, when it may answer.
                moving = True
            elif now.generation:
                plan, host = self.plans.get(gateway.name), self._host(server)
                if plan:
                    refuse_lost_keys(gateway, plan, now.upstream)
                moving |= moves.expect(gateway, plan, now, host, server, place)
        return moving

    def missing(self, server: str, place: Place) -> str | None:
        """The gateway that does not reach a server at its new place yet, as a sentence, or None.

        Until all do, the server must keep its old place.
        """
        for gateway in self._affected(server, place):
            try:
                found = moves.not_found(control.state(gateway), server)
            except CorralError as error:
                self.print_line(
                    f"{gateway.name}: cannot check whether it reaches {server}: {error.what}"
                )
                continue
            if found:
                return f"{gateway.name} does not reach it at {found.place} yet ({found.check})"
        return None

    def keep(self, server: str, place: Place | None) -> None:
        """Keep one place of a server at its gateways; None: the one before ``expect``."""
        for gateway in self._affected(server, place):
            plan, host = self.plans.get(gateway.name), self._host(server)
            try:
                moves.keep(gateway, plan, host, server, place)
            except CorralError as error:
                self.print_line(f"{gateway.name} still has two places for {server}: {error.what}")

    def _affected(self, server: str, place: Place | None) -> list[Host]:
        """Gateways with a server, now or under its new alias."""
        pool = place and server_name(place.alias)
        return [
            host
            for host in self.hosts
            if (plan := self.plans.get(host.name))
            and (plan.pool_of(server) or pool in [one.name for one in plan.pools])
        ]

    def _installed(self, gateway: Host, server: str) -> Installed | None:
        """Its installed generation; None where it is not reached, and so has no clients."""
        try:
            return control.installed(gateway)
        except UnreachedError as error:
            self.print_line(f"{gateway.name} does not get the place of {server}: {error.what}")
            return None

    def _host(self, server: str) -> Host:
        name = server.rpartition("/")[0]
        return next(host for host in self.hosts if host.name == name)

    def _take(self, server: str, instance: InstancePlan, taken: list[Taken]) -> bool:
        """Drain the server at all gateways; False, with none changed, where one cannot."""
        limit = instance.activation.drain_seconds
        try:
            in_front = self._in_front(server)
            if in_front and all(self._drain(one, server, limit, taken) for one in in_front):
                return True
        except CorralError as error:
            self.print_line(f"{server} is not drained: {error.what}")
        self._release(taken, server)
        taken.clear()
        return False

    def _in_front(self, server: str) -> list[Host]:
        """The gateways in front of a server."""
        return gateways_of(server, self.hosts, self.plans)

    def can_drain(self, server: str, instance: InstancePlan) -> bool:
        """Whether the server could be drained now; changes nothing."""
        if instance.activation.how == "side-by-side":
            return False
        try:
            found = [_standing(gateway, server) for gateway in self._in_front(server)]
        except CorralError:
            return False
        return bool(found) and all(one.others or not one.serves for one in found)

    def _drain(self, gateway: Host, server: str, limit: int, taken: list[Taken]) -> bool:
        now = _standing(gateway, server)
        if not now.open:
            return True
        if now.serves and not now.others:
            return False
        # Includes a server whose checks fail: they may pass again just before it stops.
        taken.append(Taken(gateway, served=now.serves))
        control.drain(gateway, server, LEASE_SECONDS, limit_seconds=limit)
        return True

    def _release(self, taken: Sequence[Taken], server: str) -> list[str]:
        """End the drains; returns gateways whose checks the server passed before and fails now."""
        failing = []
        for one in taken:
            name = one.gateway.name
            try:
                if not one.served:
                    control.release(one.gateway, server)
                elif not control.ready(one.gateway, server):
                    failing.append(name)
            except CorralError as error:
                # The gateway ends the drain by its lease, so no capacity is lost for good.
                ends = f"{name} sends it requests again within {LEASE_SECONDS} s"
                self.print_line(f"{server}: {error.what}; {ends}")
        return failing


@dataclass(frozen=True)
class UnplannedGateways(Gateways):
    """Gateways without plans."""

    def _in_front(self, server: str) -> list[Host]:
        """Raises CorralError for a gateway that does not answer."""
        return [h for h in self._gateways() if control.of_server(control.state(h), server)]

    def expect(self, server: str, place: Place) -> bool:
        """As with plans, for gateways without a mistake in their data."""
        for gateway in self._gateways():
            if not gateway.spec.gateway:
                command = (
                    f"pyinfra {gateway.origin or 'INVENTORY'} deploy.py --limit {gateway.name}"
                )
                self.print_line(
                    f"{gateway.name} does not get the place of {server}: its data has a mistake. "
                    f"Next: fix that, then run `{command}`"
                )
        return super().expect(server, place)

    def _affected(self, server: str, place: Place | None) -> list[Host]:
        known = [host for host in self._gateways() if host.spec.gateway]
        if place is None:
            return known
        return [one for one in known if moves.may_serve(one, self._host(server), place)]

    def _gateways(self) -> list[Host]:
        return [host for host in self.hosts if host.data.get("gateway")]


def _standing(gateway: Host, server: str) -> Standing:
    states = control.state(gateway)
    own = control.of_server(states, server)
    pools = {one.pool for one in own}
    return Standing(
        open=any(one.open or returns_soon(one) for one in own),
        serves=any(one.serves for one in own),
        others=any(one.serves and one.pool in pools and one not in own for one in states),
    )


@contextmanager
def renewed(
    server: str, gateways: Callable[[], Sequence[Host]], print_line: PrintLine
) -> Iterator[None]:
    """Renew the leases of a server's drains at gateways until the block ends."""

    def renew() -> None:
        for gateway in gateways():
            _renew(gateway, server, print_line)

    with repeated(renew, seconds=_RENEW_SECONDS):
        yield


def _renew(gateway: Host, server: str, print_line: PrintLine) -> None:
    try:
        control.drain(gateway, server, LEASE_SECONDS, limit_seconds=0)
    except CorralError as error:
        print_line(f"{server} may get requests from {gateway.name}: {error.what}")
