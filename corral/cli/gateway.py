"""`corral gateway`: the servers behind gateways, their drains and weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
from corral_shared.text import counted
from pydantic import TypeAdapter
from rich.text import Text

from corral.cli.documents import Document
from corral.cli.select import inventories, inventory_option, print_mistakes
from corral.cli.times import Duration
from corral.cli.views.instances import short
from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import ClientCount, ServerState
from corral.inventory.hosts import Host, Inventory
from corral.plan.gateway import FULL_WEIGHT, GatewayPlan, server_name
from corral.planning.fleet import plan_fleet
from corral.planning.gateways import gateways_of
from corral.planning.load import load_planner
from corral.project import project_root
from corral.remote.run import on_all
from corral.schema import did_you_mean
from corral.terminal import Rows, coloured, echo, show

server_argument = click.argument("server", metavar="HOST/INSTANCE")


_STATUS = Document(
    "gateway-status",
    TypeAdapter(dict[str, list[ServerState] | str]),
    "corral gateway status",
    about="Gateway -> its servers, or why it does not answer.",
)
_CLIENTS = Document(
    "gateway-clients",
    TypeAdapter(dict[str, list[ClientCount]]),
    "corral gateway clients",
    about="Gateway -> requests of each client, of gateways that answer.",
)


@click.group()
def gateway() -> None:
    """Show, drain and weight the servers behind gateways."""


@gateway.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def status(as_json: bool, inventory: Path | None) -> None:
    """Show all servers of gateways.

    Exit code 1: an alias has no serving member, or a gateway does not answer.
    """
    found, mistakes = _gateways(inventory)
    if not found:
        raise CorralError("corral gateway", "no host has a gateway", 'see "gateway" in the README')
    answers = dict(zip([h.name for h, _ in found], on_all(_ask, found), strict=True))
    if as_json:
        _STATUS.show(answers)
    else:
        show(_table(found, answers))
        for answer in answers.values():
            if isinstance(answer, str):
                echo(answer, err=True)
    succeeded = all(_serves(plan, answers[host.name]) for host, plan in found)
    sys.exit(0 if succeeded and not mistakes else 1)


@gateway.command()
@click.option("--since", "seconds", type=Duration(), default="24h", show_default=True,
              help="How far back, such as 90m; the host's journal may reach less far.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def clients(seconds: int, as_json: bool, inventory: Path | None) -> None:
    """Count requests by client, from the logs of gateways.

    Clients have names by `corral keys add`. Exit code 1: a gateway does not answer.
    """
    found, mistakes = _gateways(inventory)
    if not found:
        raise CorralError("corral gateway", "no host has a gateway", 'see "gateway" in the README')

    def ask(pair: tuple[Host, GatewayPlan | None]) -> list[ClientCount] | CorralError:
        try:
            return control.clients(pair[0], seconds)
        except CorralError as error:
            return error

    answers = dict(zip([h.name for h, _ in found], on_all(ask, found), strict=True))
    rows = {n: a for n, a in answers.items() if not isinstance(a, CorralError)}
    if as_json:
        _CLIENTS.show(rows)
    else:
        table = Rows("gateway", "alias", "client", "requests", "failed", "refused")
        for name, row in rows.items():
            for one in row:
                figures = (one.requests, one.failed, one.refused)
                table.add(name, one.pool, one.client or "-", *map(str, figures))
        show(table)
    for answer in answers.values():
        if isinstance(answer, CorralError):
            echo(answer, err=True)
    sys.exit(0 if len(rows) == len(answers) and not mistakes else 1)


@gateway.command()
@server_argument
@click.option("--lease", "lease_seconds", type=Duration(1), default="1h", show_default=True,
              help="Time until it serves again, such as 5m; a number is seconds.")  # fmt: skip
@click.option("--limit", "limit_seconds", type=Duration(), default=control.DRAIN_SECONDS,
              show_default=True, help="Time to wait for requests in flight.")  # fmt: skip
@click.option("--last", is_flag=True, help="Drain even the last member of an alias.")
@inventory_option
def drain(
    server: str, lease_seconds: int, limit_seconds: int, last: bool, inventory: Path | None
) -> None:
    """Drain a server: send it no new requests.

    Exit code 1: some requests are still in flight at the limit.
    """
    in_flight = 0
    for host in _behind(server, inventory):
        drained = control.drain(host, server, lease_seconds, limit_seconds=limit_seconds, last=last)
        echo(
            f"{host.name}: {server} drained, {counted(drained.sessions_left, 'request')} in flight "
            f"after {drained.seconds:.1f} s; serves again in {lease_seconds} s"
        )
        in_flight += drained.sessions_left
    sys.exit(1 if in_flight else 0)


@gateway.command()
@server_argument
@inventory_option
def ready(server: str, inventory: Path | None) -> None:
    """End the drain of a server.

    Exit code 1: its checks do not pass.
    """
    _each(server, inventory, lambda host: control.ready(host, server), "serves", "does not answer")


@gateway.command()
@server_argument
@click.argument("share", metavar="N%")
@inventory_option
def weight(server: str, share: str, inventory: Path | None) -> None:
    """Set the weight of a server, until the inventory changes it."""
    number = share.removesuffix("%")
    if not number.isdigit() or int(number) > FULL_WEIGHT:
        what = f"{share} is not a weight"
        raise CorralError(f"corral gateway weight {server}", what, "use 0% to 100%")

    def weigh(host: Host) -> bool:
        control.weigh(host, server, int(number))
        return True

    _each(server, inventory, weigh, f"weighs {number}%", "")


def _each(
    server: str, inventory: Path | None, work: Callable[[Host], bool], done: str, not_done: str
) -> None:
    outcomes = {host.name: work(host) for host in _behind(server, inventory)}
    for name, succeeded in outcomes.items():
        echo(f"{name}: {server} {done if succeeded else not_done}")
    sys.exit(0 if all(outcomes.values()) else 1)


Found = list[tuple[Host, GatewayPlan | None]]


def _gateways(inventory: Path | None) -> tuple[Found, list[CorralError]]:
    """Gateways with plans, and mistakes, which are printed; a plan is None for its mistakes."""
    known = inventories(inventory)
    found: Found = []
    mistakes: list[CorralError] = []
    for one in known.read:
        hosts = [host for host in one.hosts if host.data.get("gateway")]
        plans, mistake = _plans(one) if hosts else ({}, None)
        found += [(host, plans.get(host.name)) for host in hosts]
        mistakes += [mistake] if mistake else []
    print_mistakes([*known.mistakes, *mistakes])
    return found, mistakes


def _plans(inventory: Inventory) -> tuple[dict[str, GatewayPlan], CorralError | None]:
    try:
        planner = load_planner(project_root(), tolerant=True)
        fleet = plan_fleet(inventory.hosts, planner, mistakes=inventory.mistakes)
        return dict(fleet.whole_gateways()), None
    except CorralError as error:
        return {}, error


def _behind(server: str, inventory: Path | None) -> list[Host]:
    """The gateways in front of a server, by plan or by their own state.

    Prints an error for a gateway that does not answer. Raises CorralError where there is none.
    """
    found, _ = _gateways(inventory)
    plans = {host.name: plan for host, plan in found if plan}
    hosts = gateways_of(server, [host for host, _ in found], plans)
    known = {m.name for plan in plans.values() for pool in plan.pools for m in pool.members}
    silent: list[CorralError] = []
    for host in (host for host, plan in found if plan is None):
        try:
            has = {one.server for one in control.state(host)}
        except CorralError as error:
            silent.append(error)
            continue
        hosts += [host] if server_name(server) in has else []
        known |= has
    if silent and not hosts:
        raise silent[0]
    print_mistakes(silent)
    if not hosts:
        what = f"is behind no gateway{did_you_mean(server, known)}"
        raise CorralError(server, what, "run `corral gateway status` to list servers")
    return hosts


def _ask(target: tuple[Host, GatewayPlan | None]) -> list[ServerState] | str:
    try:
        return control.state(target[0])
    except CorralError as error:
        return str(error)


def _serves(plan: GatewayPlan | None, answer: list[ServerState] | str) -> bool:
    if isinstance(answer, str):
        return False
    serving = {server.pool for server in answer if server.serves}
    pools = {pool.name for pool in plan.pools} if plan else {server.pool for server in answer}
    return serving >= pools


def _table(found: Found, answers: dict[str, list[ServerState] | str]) -> Rows:
    """One row for each planned server, or for each server of a gateway without a plan."""
    heads = ("gateway", "alias", "server", "state", "weight", "requests", "last check")
    table = Rows(*heads)
    for host, plan in found:
        answer = answers[host.name]
        if isinstance(answer, str):
            table.add(host.name, coloured(short(answer), "red"))
            continue
        if plan is None:
            for row in answer:
                table.add(host.name, row.pool, row.server, *_cells(row))
            continue
        known = {row.server: row for row in answer}
        for pool in plan.pools:
            for member in pool.members:
                table.add(host.name, pool.alias, member.name, *_cells(known.get(member.server)))
    return table


def _cells(row: ServerState | None) -> tuple[str | Text, ...]:
    if row is None:
        return coloured("unknown: deploy the gateway", "red"), "", "", ""
    state = "up" if row.up else "down"
    if row.admin != "ready":
        state += f", {row.admin}" + (f" until {row.until}" if row.until else "")
    colour = "green" if row.serves else "red"
    weight = f"{row.weight}%"
    return coloured(state, colour), weight, str(row.sessions), row.check
