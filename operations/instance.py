"""Instances: keys, generations, activation, verification."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pyinfra import host, state
from pyinfra.api import operation
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.gateway.control import DRAIN_SECONDS
from corral.host.activation_report import format_report
from corral.host.checks import failures, subjects
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.remote.client import installed_helper
from corral.remote.outside import outside_checks
from corral.rollout.activation import Driver, Traffic
from corral.rollout.pausing import Gateways
from corral.rollout.removal import remove
from corral.store.api_keys import KeyFile, forget_keys
from facts.instance import Checks
from operations import Commands, job
from operations.current_operator import CurrentOperator, operator_document
from operations.live import LIVE


@dataclass(frozen=True)
class Leaving:
    """Instances of a host that left the inventory, and the hosts that may be gateways of theirs."""

    names: tuple[str, ...]
    gateways: tuple[Host, ...] = ()


@operation()
def keys(
    changed: Sequence[InstancePlan],
    *,
    helper: str,
    files: Mapping[str, KeyFile],
    seen: Mapping[str, str | None] | None = None,
    digest_key: str = "",
    operator: CurrentOperator | None = None,
) -> Commands:
    """Put api-key files on the host; their text travels on standard input only.

    + changed: instances whose file differs; + files: instance name -> keys;
    + seen: instance name -> digest of the file that is there, made with ``digest_key``;
    + operator: the current operator.
    """
    if not changed:
        host.noop("all key files are current")
        return
    for instance in changed:
        was = {"was": seen.get(instance.name), "digest_key": digest_key} if seen else {}
        paths = {"key_path": instance.key_path, "unit_path": instance.unit_path}
        text = {"keys": files[instance.name].text}
        document = json.dumps({**paths, **was, **operator_document(operator), **text})
        yield StringCommand("python3", "-I", QuoteString(helper), "key", _stdin=document)


@operation()
def generations(
    missing: Sequence[InstancePlan], *, helper: str, operator: CurrentOperator | None = None
) -> Commands:
    """Write generations to the host; no service is touched.

    + missing: instances whose planned generation is not there; + operator: the current operator.
    """
    if not missing:
        host.noop("all generations are staged")
        return
    for instance in missing:
        document = json.dumps({**instance.model_dump(mode="json"), **operator_document(operator)})
        yield StringCommand("python3", "-I", QuoteString(helper), "stage", _stdin=document)


@operation()
def ports(reserved: bool, *, plan: HostPlan) -> Commands:
    """Let nobody but the servers answer from their ports, now and after a boot.

    + reserved: whether the host's packet rules are those of the plan.
    """
    if reserved:
        host.noop("the ports are reserved")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "reserve", _stdin=plan.to_helper())


@operation()
def watch(watched: bool, *, plan: HostPlan) -> Commands:
    """Watch servers between deploys: their GPU memory, and answers of those with a watchdog.

    + watched: whether the host's service is that of the plan.
    """
    if watched:
        host.noop("the servers are watched as planned")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "watch-install", _stdin=plan.to_helper())


@operation()
def activate(
    waiting: Sequence[InstancePlan],
    *,
    of: Host,
    plan: HostPlan,
    traffic: Traffic,
    finish: Callable[[], None],
    leaving: Leaving | None = None,
) -> Commands:
    """Switch instances to their planned generation; the host reverts one that fails its gate.

    + waiting: instances that do not serve their planned generation with their current keys;
    + of: the host, as Corral reads it; + traffic: the gateways; + finish: called once all serve;
    + leaving: instances that left the inventory and hold a port of these.
    """
    if not waiting:
        host.noop("all instances serve their planned generation")
        return
    before = (leaving,) if leaving and leaving.names else ()
    yield FunctionCommand(_activate, (waiting, of, plan, traffic, finish, *before), {})


def _activate(
    state: State,
    host: PyinfraHost,
    waiting: Sequence[InstancePlan],
    of: Host,
    plan: HostPlan,
    traffic: Traffic,
    finish: Callable[[], None],
    leaving: Leaving | None = None,
) -> bool:
    """By ssh(1), a connection for each question: pyinfra's own is never opened again once cut."""
    if leaving and not _remove(state, host, leaving, of, plan.paths.helper):
        return False
    with LIVE.shown(host.name, partial(job.print_line, host)) as on_progress:
        driver = Driver(job.reached(of, host), plan, traffic, on_progress=on_progress)
        if not _activate_each(driver, waiting, host):
            return False
    finish()
    return True


def _activate_each(driver: Driver, waiting: Sequence[InstancePlan], host: PyinfraHost) -> bool:
    for instance in waiting:
        try:
            report = driver.activate(instance)
        except CorralError as error:
            job.report(host, str(error).splitlines())
            return False
        if not report.ok:
            job.report(host, format_report(report))
            return False
        job.print_line(host, format_report(report)[0])
    return True


@operation()
def verify(plan: HostPlan, *, of: Host, document: str | None = None) -> Commands:
    """Compare running instances, and the gateway, with the plan; never a change.

    + plan: what the host shall be; + of: the host, as Corral reads it
    + document: the plan with what the store says of its keys.
    """
    if not subjects(plan) or not state.is_executing:
        host.noop("verified once everything is in place")
        return
    checks = host.get_fact(Checks, helper=plan.paths.helper, _stdin=document or plan.to_helper())
    checks = [*checks, *outside_checks(of, plan)]
    failed = failures(plan, checks)
    if failed:
        next_step = f"`corral logs {plan.host}` says why; `corral verify {plan.host}` checks again"
        yield from job.fail("\n".join([*failed, f"  Next: {next_step}"]))
        return
    host.noop(f"{len(checks)} checks passed")


@operation()
def removed(leaving: Leaving, *, of: Host, helper: str) -> Commands:
    """Remove instances from the host: drained and stopped, with units, generations and keys.

    + of: the host, as Corral reads it.
    """
    if not leaving.names:
        host.noop("no instance is on the host that is not in the inventory")
        return
    yield FunctionCommand(_remove, (leaving, of, helper), {})


def _remove(
    state: State,  # noqa: ARG001 - pyinfra's
    host: PyinfraHost,
    leaving: Leaving,
    of: Host,
    helper: str,
) -> bool:
    say = partial(job.print_line, host)
    # Nobody plans them: a gateway that still has one sends its requests elsewhere, if it can.
    fronts = Gateways(leaving.gateways, "the deploy", say, force=True)
    for name in leaving.names:
        try:
            answer = remove(
                installed_helper(job.reached(of, host), helper), of, name, fronts,
                drain_seconds=DRAIN_SECONDS,
            )  # fmt: skip
        except CorralError as error:
            job.report(host, str(error).splitlines())
            return False
        say(f"{name}: removed, {answer.requests_cut} requests were cut")
        if forget_keys(of, name):
            say(f"{name}: its keys on the controller are removed, too")
    return True
