"""This run of pyinfra: the fleet that it works on, and and the state of its hosts.

Written while pyinfra prepares, read while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from corral.errors import CorralError
from corral.inventory.hosts import Host, read_host
from corral.planning.fleet import FleetPlan, plan_fleet
from corral.planning.load import load_planner
from corral.project import project_root
from corral.rollout.activation import Traffic
from corral.rollout.traffic import traffic
from operations.messages import warn


@dataclass
class Run:
    """What is known of the hosts of one run.

    + having, lacking: release -> hosts that have it, and hosts that lack it
    + made: host -> keys of the releases that it built in this run
    + lacking_weights: host -> digests of the weights that it lacks
    + checked: hosts whose state is known; + waiting: those with instances that do not serve their
      plan; + done: those of them that do now
    + left_out: those that had failed when the first wave was due
    """

    fleet: FleetPlan
    traffic: Traffic
    having: dict[str, set[str]] = field(default_factory=dict)
    lacking: dict[str, set[str]] = field(default_factory=dict)
    made: dict[str, set[str]] = field(default_factory=dict)
    lacking_weights: dict[str, frozenset[str]] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    left_out: frozenset[str] | None = None


def this_run() -> Run:
    """Raises CorralError for a catalog or a lock that cannot be read."""
    return _run(state())


def fleet() -> FleetPlan:
    """All hosts of the inventory, also those that --limit leaves out or that are not reached.

    Those that are not reached build nothing. Raises CorralError.
    """
    return this_run().fleet


def failed() -> frozenset[str]:
    """Names of the hosts that failed so far."""
    return frozenset(host.name for host in state().failed_hosts)


def state() -> State:
    """pyinfra's own object; what it exports is a proxy, another for each question."""
    found: State = ctx_state.get()  # type: ignore[no-untyped-call]
    return found


@cache
def _run(of: State) -> Run:
    hosts: list[Host] = []
    mistakes: dict[str, CorralError] = {}
    for one in of.inventory:
        found, mistake = _read(one)
        hosts += [found] if found else []
        mistakes |= {one.name: mistake} if mistake else {}
    reached = {host.name for host in of.inventory if host in of.activated_hosts}
    planner = load_planner(project_root(), tolerant=True)
    planned = plan_fleet(hosts, planner, mistakes=mistakes, reached=reached)
    return Run(planned, traffic(planned, warn))


def _read(host: PyinfraHost) -> tuple[Host | None, CorralError | None]:
    data = host.data.dict()  # type: ignore[no-untyped-call]
    return read_host(host.name, data, origin=_origin(host.groups))


def _origin(groups: Iterable[str]) -> str:
    """The inventory's file; pyinfra tells it only by the group that it names after the file."""
    files = [f"inventories/{group}.py" for group in groups]
    return next((file for file in files if (project_root() / file).is_file()), "the inventory")
