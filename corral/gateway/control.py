"""Drain servers of a gateway and bring them back, by the helper on its host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from corral_shared.gateway_lines import Line, base
from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.gateway.files import GatewayFiles
from corral.host.answers import ANYTHING, Told
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS
from corral.plan.gateway import GatewayPlan, server_name
from corral.remote.client import travelling_helper

DRAIN_SECONDS = 60


class ServerState(Told):
    """A server as its gateway sees it.

    + server: in HAProxy's words, see ``server_name``; + pool: its alias, likewise
    + up: its checks pass; + admin: ready, drain or maint; + sessions: requests that run on it
    + check: the last check's result; + until: when a drain's lease ends, for people
    + place: ADDRESS:PORT, empty of a helper of an earlier version
    """

    server: str
    pool: str
    up: bool
    admin: str
    weight: int
    sessions: int
    check: str
    until: str | None
    place: str = ""

    @property
    def open(self) -> bool:
        """Whether it gets requests while its checks pass."""
        return self.admin == "ready" and self.weight > 0

    @property
    def serves(self) -> bool:
        """Whether it gets requests."""
        return self.up and self.open


class Drained(Told):
    """A drain: requests that still ran at its limit, and how long it took."""

    sessions_left: int
    seconds: float


class Installed(Told):
    """What a gateway has; nothing where it was never deployed.

    + whole: as Corral wrote it, proved, and there at a boot
    + config: HAProxy's, without its own id
    + files: sha256 of each other file; + upstream: pool -> sha256 of the key that it shows there
    """

    generation: str | None
    running: str | None = None
    whole: bool = False
    config: str = ""
    files: dict[str, str] = {}
    upstream: dict[str, str] = {}


class Changed(Told):
    """A gateway runs a generation now; None where it was never deployed."""

    generation: str | None


class _Last(Told):
    """A drain that was refused: nobody else serves this alias."""

    last_of: str


class _Servers(Told):
    servers: list[ServerState]


class _Ready(Told):
    serving: bool


_SERVERS = TypeAdapter(_Servers)
_DRAIN: TypeAdapter[_Last | Drained] = TypeAdapter(_Last | Drained)
_READY = TypeAdapter(_Ready)
_INSTALLED = TypeAdapter(Installed)
_CHANGED = TypeAdapter(Changed)
# Beside what a drain waits.
_ANSWER_SECONDS = 120

T = TypeVar("T")


def state(gateway: Host) -> list[ServerState]:
    """All servers of a gateway; none where it was never deployed. Raises CorralError."""
    return _ask(gateway, "state", _SERVERS).servers


def of_server(states: Sequence[ServerState], server: str) -> list[ServerState]:
    """Those of a server (HOST/INSTANCE): two while it moves to another place."""
    return [one for one in states if base(one.server) == server_name(server)]


def drain(
    gateway: Host,
    server: str,
    lease_seconds: int,
    *,
    limit_seconds: int = DRAIN_SECONDS,
    last: bool = False,
) -> Drained:
    """Send a server no new requests, and wait for those that run.

    + server: ``host/instance``; + lease_seconds: after them the gateway makes it ready by itself
    + limit_seconds: for the wait; + last: also where nobody else would serve its alias
    Raises CorralError, also for the last server that serves.
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
        raise CorralError(gateway.name, what, "bring another one back, or mean it (--last)")
    return answer


def ready(gateway: Host, server: str) -> bool:
    """Send a server requests again; gives whether its checks pass within 20 seconds.

    + server: ``host/instance``. Raises CorralError.
    """
    name = server_name(server)
    return _ask(gateway, "ready", _READY, server=name, by_lease=False).serving


def release(gateway: Host, server: str) -> None:
    """End a drain, whether or not the server's checks pass: they decide again.

    + server: ``host/instance``. Raises CorralError.
    """
    name = server_name(server)
    _ask(gateway, "ready", _READY, server=name, by_lease=False, patience_seconds=0)


def weigh(gateway: Host, server: str, weight: int) -> None:
    """Change a server's share until the inventory says another one.

    + server: ``host/instance``; + weight: 0 to 100. Raises CorralError.
    """
    _ask(gateway, "weight", ANYTHING, server=server_name(server), weight=weight)


def installed(gateway: Host) -> Installed:
    """What a gateway has. Raises CorralError."""
    return _tell(gateway, "gateway-installed", {}, _INSTALLED)


def place(gateway: Host, server: str, lines: Sequence[Line]) -> None:
    """Look for a server in these places alone.

    + server: ``host/instance``; + lines: its own. Raises CorralError when nothing was changed.
    """
    details = {"server": server_name(server), "lines": list(lines)}
    _tell(gateway, "gateway-place", details, _CHANGED)


def install(
    gateway: Host, plan: GatewayPlan, files: GatewayFiles, *, rollout: str | None = None
) -> None:
    """Switch to a generation, for a rollout if one is named.

    Raises CorralError once the one from before serves again.
    """
    details = {
        "generation": files.generation,
        "files": dict(files.files),
        "plan": plan.model_dump(mode="json"),
        **_asker(rollout),
    }
    _tell(gateway, "gateway-install", details, _CHANGED)


def revert(gateway: Host, *, rollout: str | None = None) -> None:
    """Undo the last ``install``; servers stay where they are by now. Raises CorralError."""
    _tell(gateway, "gateway-revert", _asker(rollout), _CHANGED)


def _asker(rollout: str | None) -> dict[str, Any]:
    """Current operator, as a host has it that may be held for another rollout."""
    return {"asker": {"state": HOST_PATHS.state, "rollout": rollout}}


def _tell(gateway: Host, command: str, details: dict[str, Any], shape: TypeAdapter[T]) -> T:
    paths = {"folder": HOST_PATHS.gateway, "units": HOST_PATHS.units, "helper": HOST_PATHS.helper}
    text = json.dumps({**paths, **details})
    client = travelling_helper(gateway)
    return client.ask([command], shape, text, seconds=_ANSWER_SECONDS)


def _ask(
    gateway: Host, what: str, shape: TypeAdapter[T], *, wait_seconds: int = 0, **details: Any
) -> T:
    question = {
        "do": what, "folder": HOST_PATHS.gateway, "helper": HOST_PATHS.helper, **details,
    }  # fmt: skip
    seconds = _ANSWER_SECONDS + wait_seconds
    client = travelling_helper(gateway)
    return client.ask(["gateway"], shape, json.dumps(question), seconds=seconds)
