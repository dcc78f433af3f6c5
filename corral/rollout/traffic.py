"""The gateways of an inventory, as activations see them: who is behind which alias, and drains."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from corral.errors import CorralError
from corral.gateway import control, moves
from corral.gateway.change import refuse_lost_keys
from corral.gateway.control import Installed
from corral.gateway.moves import Place
from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan, server_name
from corral.plan.instance import InstancePlan
from corral.planning.fleet import FleetPlan
from corral.planning.gateways import gateways_of, instance_keys
from corral.remote.unreached import UnreachedError
from corral.rollout.activation import NoGateway, Traffic
from corral.store.api_keys import KeyFile

# A gateway sends requests again so long after it last heard of a change: a controller that died
# keeps nobody away for longer. Renewed while it lives.
LEASE_SECONDS = 60
_RENEW_SECONDS = 15

Say = Callable[[str], None]


def traffic(fleet: FleetPlan, say: Say) -> Traffic:
    """What keeps requests from an instance while it changes.

    + say: told what a gateway could not do
    """
    return Gateways(fleet.everyone, fleet.gateways, say) if fleet.gateways else NoGateway()


def traffic_as_found(hosts: Sequence[Host], say: Say) -> Traffic:
    """The same where no gateway can be planned: they are asked which servers they have."""
    found = any(host.data.get("gateway") for host in hosts)
    return AskedGateways(tuple(hosts), {}, say) if found else NoGateway()


def key_of(fleet: FleetPlan) -> Callable[[Host, str], KeyFile]:
    """What gives the keys of an instance, those of its gateways among them."""
    return lambda host, instance: instance_keys(
        host, instance, fleet.everyone, fleet.gateways_of(host)
    )


@dataclass(frozen=True)
class Standing:
    """What a gateway has for a server.

    + open: requests, while its checks pass; + serves: requests now
    + others: another server of its alias that serves
    """

    open: bool
    serves: bool
    others: bool


@dataclass(frozen=True)
class Taken:
    """A drain that lasts while a server changes; ``served``: it got requests before."""

    gateway: Host
    served: bool


@dataclass(frozen=True)
class Gateways:
    """All gateways of an inventory."""

    hosts: tuple[Host, ...]
    plans: Mapping[str, GatewayPlan]
    say: Say

    @contextmanager
    def away(self, server: str, instance: InstancePlan) -> Iterator[bool]:
        """Send ``server`` (HOST/INSTANCE) nothing within the block; False where that cannot be.

        It cannot where nobody else serves its alias, or a gateway does not answer: then its
        clients are the host's matter. Gateways send requests again afterwards, whatever happened.
        Raises CorralError for a changed server that does not pass the checks of a gateway.
        """
        taken: list[Taken] = []
        wanted = instance.activation.how != "side-by-side"
        failing: list[str] = []
        try:
            with renewed(server, lambda: [one.gateway for one in taken], self.say):
                yield wanted and self._take(server, instance, taken)
        finally:
            failing += self._give_back(taken, server)
        if failing:
            what = f"{server} does not pass this gateway's checks any more"
            step = f"corral verify {failing[0]}, then corral logs {server}"
            raise CorralError(failing[0], what, step)

    def expect(self, server: str, place: Place) -> bool:
        """Let gateways look for ``server`` where it is and where it will be.

        Gives whether it moves: else nothing is there for ``keep``. Raises CorralError.
        """
        moving = False
        for gateway in self._around(server, place):
            now = self._installed(gateway, server)
            if now is None:
                # Asked again afterwards, when it may be there.
                moving = True
            elif now.generation:
                plan, host = self.plans.get(gateway.name), self._host(server)
                if plan:
                    refuse_lost_keys(gateway, plan, now.upstream)
                moving |= moves.expect(gateway, plan, now, host, server, place)
        return moving

    def missing(self, server: str, place: Place) -> str | None:
        """Which gateway does not find a server at its new place yet; None: all do.

        Until then nobody may take it away from its old one.
        """
        for gateway in self._around(server, place):
            try:
                found = moves.not_found(control.state(gateway), server)
            except CorralError as error:
                self.say(f"{gateway.name} is not asked whether it finds {server}: {error.what}")
                continue
            if found:
                return f"{gateway.name} does not find it at {found.place} yet ({found.check})"
        return None

    def keep(self, server: str, place: Place | None) -> None:
        """Let gateways look for it there alone; None: where it was before ``expect``."""
        for gateway in self._around(server, place):
            plan, host = self.plans.get(gateway.name), self._host(server)
            try:
                moves.keep(gateway, plan, host, server, place)
            except CorralError as error:
                self.say(f"{gateway.name} looks for {server} in two places: {error.what}")

    def _around(self, server: str, place: Place | None) -> list[Host]:
        """Gateways that know a server, now or under its new name."""
        pool = place and server_name(place.alias)
        return [
            host
            for host in self.hosts
            if (plan := self.plans.get(host.name))
            and (plan.pool_of(server) or pool in [one.name for one in plan.pools])
        ]

    def _installed(self, gateway: Host, server: str) -> Installed | None:
        """What it has; None where it is not reached: then it has no clients either."""
        try:
            return control.installed(gateway)
        except UnreachedError as error:
            self.say(f"{gateway.name} is not told of {server}: {error.what}")
            return None

    def _host(self, server: str) -> Host:
        name = server.rpartition("/")[0]
        return next(host for host in self.hosts if host.name == name)

    def _take(self, server: str, instance: InstancePlan, taken: list[Taken]) -> bool:
        """Whether no gateway sends the server anything; else none is changed."""
        limit = instance.activation.drain_seconds
        try:
            before = self._before(server)
            if before and all(self._drain(one, server, limit, taken) for one in before):
                return True
        except CorralError as error:
            self.say(f"{server} is not drained: {error.what}")
        self._give_back(taken, server)
        taken.clear()
        return False

    def _before(self, server: str) -> list[Host]:
        """The gateways that send requests to a server."""
        return gateways_of(server, self.hosts, self.plans)

    def may_be_away(self, server: str, instance: InstancePlan) -> bool:
        """What ``away`` would give, as things are now; changes nothing."""
        if instance.activation.how == "side-by-side":
            return False
        try:
            found = [_standing(gateway, server) for gateway in self._before(server)]
        except CorralError:
            return False
        return bool(found) and all(one.others or not one.serves for one in found)

    def _drain(self, gateway: Host, server: str, limit: int, taken: list[Taken]) -> bool:
        now = _standing(gateway, server)
        if not now.open:
            return True
        if now.serves and not now.others:
            return False
        # Also one whose checks fail: they may pass again a moment before it stops.
        taken.append(Taken(gateway, served=now.serves))
        control.drain(gateway, server, LEASE_SECONDS, limit_seconds=limit)
        return True

    def _give_back(self, taken: Sequence[Taken], server: str) -> list[str]:
        """Names of the gateways whose checks the server passed before, and does not any more."""
        failing = []
        for one in taken:
            name = one.gateway.name
            try:
                if not one.served:
                    control.release(one.gateway, server)
                elif not control.ready(one.gateway, server):
                    failing.append(name)
            except CorralError as error:
                # The gateway does it by itself: who is cut off takes no capacity away for good.
                ends = f"{name} sends it requests again within {LEASE_SECONDS} s"
                self.say(f"{server}: {error.what}; {ends}")
        return failing


@dataclass(frozen=True)
class AskedGateways(Gateways):
    """Gateways whose plans are not known."""

    def _before(self, server: str) -> list[Host]:
        """Raises CorralError for a gateway that does not answer."""
        return [h for h in self._gateways() if control.of_server(control.state(h), server)]

    def expect(self, server: str, place: Place) -> bool:
        """As with plans, of gateways whose own data have no mistake."""
        for gateway in self._gateways():
            if not gateway.spec.gateway:
                command = (
                    f"pyinfra {gateway.origin or 'INVENTORY'} deploy.py --limit {gateway.name}"
                )
                self.say(
                    f"{gateway.name} is not told of {server}: there is a mistake in its data. "
                    f"Next: fix that, then `{command}`"
                )
        return super().expect(server, place)

    def _around(self, server: str, place: Place | None) -> list[Host]:
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
        open=any(one.open for one in own),
        serves=any(one.serves for one in own),
        others=any(one.serves and one.pool in pools and one not in own for one in states),
    )


@contextmanager
def renewed(server: str, gateways: Callable[[], Sequence[Host]], say: Say) -> Iterator[None]:
    """Renew the leases of a server's drains at ``gateways`` until the block ends."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_RENEW_SECONDS):
            for gateway in gateways():
                _renew(gateway, server, say)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _renew(gateway: Host, server: str, say: Say) -> None:
    try:
        control.drain(gateway, server, LEASE_SECONDS, limit_seconds=0)
    except CorralError as error:
        say(f"{server} may get requests from {gateway.name}: {error.what}")
