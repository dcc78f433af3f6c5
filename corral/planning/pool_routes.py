"""What a gateway passes on to the servers of one alias, by the engines that they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral.catalog.entries import EngineKind
from corral.engines import engine_module, kinds
from corral.errors import CorralError
from corral.plan.gateway import HealthCheck, Route


def open_routes(of: Sequence[EngineKind]) -> tuple[Route, ...]:
    """Routes that each of these engines opens: a request may go to any of their servers."""
    first, *others = (engine_module(kind).routes.open for kind in dict.fromkeys(of))
    return tuple(route for route in first if all(route in routes for routes in others))


def closed_routes(but: Sequence[Route]) -> tuple[Route, ...]:
    """All other routes that any engine has: a server may be of another kind tomorrow."""
    known = [engine_module(kind).routes for kind in kinds()]
    named = dict.fromkeys(route for routes in known for route in (*routes.open, *routes.closed))
    return tuple(route for route in named if route not in but)


def health_check(members: Mapping[str, EngineKind], where: str) -> HealthCheck:
    """How all of them are asked for their health; ``members``: name -> kind.

    Raises CorralError: HAProxy asks all servers of an alias alike.
    """
    by_check: dict[HealthCheck, str] = {}
    for name, kind in members.items():
        by_check.setdefault(engine_module(kind).routes.health, f"{name} ({kind})")
    if len(by_check) > 1:
        listed = ", ".join(f"{name} at {check.path}" for check, name in by_check.items())
        what = f"its servers are asked for their health in different ways: {listed}"
        raise CorralError(where, what, 'give one of the profiles another "alias"')
    return next(iter(by_check))
