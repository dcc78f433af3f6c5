"""Control of a gateway by the helper on its host: drain servers, change generations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from corral_shared.gateway_lines import Line, base
from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.gateway.files import GatewayFiles
from corral.host.answers import ANYTHING, HostAnswer
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS
from corral.plan.gateway import GatewayPlan, server_name
from corral.plan.key_digest import DIGEST_KEY
from corral.remote.client import travelling_helper

DRAIN_SECONDS = 60


class ServerState(HostAnswer):
    """The state of a server in its gateway.

    + server: its name in HAProxy, see ``server_name``; + pool: its alias, likewise
    + up: its checks pass; + admin: ready, drain or maint; + sessions: requests in flight
    + check: result of the last check; + until: end of a drain's lease, for display
    + lease_seconds: until then
    + place: ADDRESS:PORT, empty from a helper of an earlier version
    """

    server: str
    pool: str
    up: bool
    admin: str
    weight: int
    sessions: int
    check: str
    until: str | None
    lease_seconds: float | None = None
    place: str = ""

    @property
    def open(self) -> bool:
        """Whether it gets requests while its checks pass."""
        return self.admin == "ready" and self.weight > 0

    @property
    def serves(self) -> bool:
        """Whether it gets requests."""
        return self.up and self.open


class Drained(HostAnswer):
    """A finished drain: requests still in flight at its limit, and its duration."""

    sessions_left: int
    seconds: float


class Installed(HostAnswer):
    """The installed generation of a gateway; empty where it was never deployed.

    + whole: files are as Corral wrote them, proved, and enabled at boot
    + config: HAProxy's configuration, without the generation's id
    + files: name -> digest of each other file; + upstream: pool -> digest of the key for it
    """

    generation: str | None
    running: str | None = None
    whole: bool = False
    config: str = ""
    files: dict[str, str] = {}
    upstream: dict[str, str] = {}


class ClientCount(HostAnswer):
    """Requests of a client of a pool; ``client``: "" for keys without a name, and for refusals.

    + refused: without a right key; + failed: of the requests, those that ended with a fault
    """

    pool: str
    client: str
    requests: int
    refused: int
    failed: int


class _Clients(HostAnswer):
    clients: list[ClientCount]


class Changed(HostAnswer):
    """The generation that a gateway runs after a change; None where it was never deployed."""

    generation: str | None


class _Last(HostAnswer):
    """A refused drain: no other server serves this alias."""

    last_of: str


class _Servers(HostAnswer):
    servers: list[ServerState]


class _Ready(HostAnswer):
    serving: bool


_SERVERS = TypeAdapter(_Servers)
_DRAIN: TypeAdapter[_Last | Drained] = TypeAdapter(_Last | Drained)
_READY = TypeAdapter(_Ready)
_INSTALLED = TypeAdapter(Installed)
_CHANGED = TypeAdapter(Changed)
_CLIENTS = TypeAdapter(_Clients)
# Beyond the time that a drain waits.
_ANSWER_SECONDS = 120

T = TypeVar("T")


def state(gateway: Host) -> list[ServerState]:
    """All servers of a gateway; empty where it was never deployed. Raises CorralError."""
    return _ask(gateway, "state", _SERVERS).servers


def of_server(states: Sequence[ServerState], server: str) -> list[ServerState]:
    """The states of one server (HOST/INSTANCE); two while it moves to another address."""
    return [one for one in states if base(one.server) == server_name(server)]


def drain(
    gateway: Host,
    server: str,
    lease_seconds: int,
    *,
    limit_seconds: int = DRAIN_SECONDS,
    last: bool = False,
) -> Drained:
    """Drain a server: send it no new requests, and wait for those in flight.

    + server: ``host/instance``; + lease_seconds: then the gateway makes it ready by itself
    + limit_seconds: limit of the wait; + last: also drain the last server of its alias
    Raises CorralError, also for the last server without ``last``.
    """
    answer = _ask(
        gateway,
        "drain",
        _DRAIN,
        wait_seconds=limit_seconds,
        server=server_name(server),
        lease_seconds=lease_seconds,
        limit_seconds=limit_seconds,
        last=last,
    )
    if isinstance(answer, _Last):
        what = f"{server} is the last server of {answer.last_of} that serves, and was not drained"
        raise CorralError(gateway.name, what, "make another one ready first, or add --last")
    return answer


def ready(gateway: Host, server: str) -> bool:
    """End a drain; returns whether the server's checks pass within 20 seconds.

    + server: ``host/instance``. Raises CorralError.
    """
    name = server_name(server)
    return _ask(gateway, "ready", _READY, server=name, by_lease=False).serving


def release(gateway: Host, server: str) -> None:
    """End a drain without waiting for the server's checks.

    + server: ``host/instance``. Raises CorralError.
    """
    name = server_name(server)
    _ask(gateway, "ready", _READY, server=name, by_lease=False, patience_seconds=0)


def weigh(gateway: Host, server: str, weight: int) -> None:
    """Change a server's weight until the inventory changes it.

    + server: ``host/instance``; + weight: 0 to 100. Raises CorralError.
    """
    _ask(gateway, "weight", ANYTHING, server=server_name(server), weight=weight)


def clients(gateway: Host, seconds: int) -> list[ClientCount]:
    """Requests of the last ``seconds`` by pool and client, from the log. Raises CorralError."""
    return _run(gateway, "gateway-clients", {"seconds": seconds}, _CLIENTS).clients


def installed(gateway: Host) -> Installed:
    """The installed generation of a gateway. Raises CorralError."""
    return _run(gateway, "gateway-installed", {"digest_key": DIGEST_KEY}, _INSTALLED)


def place(gateway: Host, server: str, lines: Sequence[Line]) -> None:
    """Replace the lines of a server in the configuration.

    + server: ``host/instance``; + lines: its new lines. Raises CorralError; nothing was changed.
    """
    details = {"server": server_name(server), "lines": list(lines)}
    _run(gateway, "gateway-place", details, _CHANGED)


def install(
    gateway: Host, plan: GatewayPlan, files: GatewayFiles, *, rollout: str | None = None
) -> None:
    """Activate a generation; ``rollout``: id of the rollout, if any.

    Raises CorralError after a failure, once the previous generation serves again.
    """
    details = {
        "generation": files.generation,
        "files": dict(files.files),
        "plan": plan.model_dump(mode="json"),
        **_operator(rollout),
    }
    _run(gateway, "gateway-install", details, _CHANGED)


def revert(gateway: Host, *, rollout: str | None = None) -> None:
    """Revert the last ``install``; servers keep their current addresses. Raises CorralError."""
    _run(gateway, "gateway-revert", _operator(rollout), _CHANGED)


def _operator(rollout: str | None) -> dict[str, Any]:
    """The current operator, for the host's check of locks held for another rollout."""
    return {"asker": {"state": HOST_PATHS.state, "rollout": rollout}}


def _run(gateway: Host, command: str, details: dict[str, Any], shape: TypeAdapter[T]) -> T:
    paths = {"folder": HOST_PATHS.gateway, "units": HOST_PATHS.units, "helper": HOST_PATHS.helper}
    text = json.dumps({**paths, **details})
    client = travelling_helper(gateway)
    return client.ask([command], shape, text, seconds=_ANSWER_SECONDS)


def _ask(
    gateway: Host, what: str, shape: TypeAdapter[T], *, wait_seconds: int = 0, **details: Any
) -> T:
    request = {
        "do": what, "folder": HOST_PATHS.gateway, "helper": HOST_PATHS.helper, **details,
    }  # fmt: skip
    seconds = _ANSWER_SECONDS + wait_seconds
    client = travelling_helper(gateway)
    return client.ask(["gateway"], shape, json.dumps(request), seconds=seconds)
