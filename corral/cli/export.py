"""`corral export`: an instance in other forms, or what a Prometheus needs of the fleet."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.export_monitoring import export_monitoring
from corral.cli.select import inventory_option, matching, named, print_mistakes
from corral.errors import CorralError
from corral.export import FORMS
from corral.export.subject import Subject
from corral.files import create_atomic, write_atomic
from corral.inventory.hosts import Host, Inventory
from corral.monitoring.files import Form
from corral.plan.host import HostPlan
from corral.planning.fleet import plan_fleet
from corral.planning.load import load_planner
from corral.project import project_root, templates
from corral.terminal import echo, echo_file

_MONITORING: tuple[Form, ...] = ("prometheus", "vmagent")
_FORMS = click.Choice([*FORMS, *_MONITORING])


@click.command()
@click.argument("name", metavar="INSTANCE|HOST/INSTANCE|monitoring")
@click.option("--as", "form", type=_FORMS, required=True, help="Format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File, or folder.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@inventory_option
def export(name: str, form: str, output: Path | None, force: bool, inventory: Path | None) -> None:
    """Export an instance as env file, start script or compose file.

    `corral export monitoring --as prometheus -o FOLDER`: scrape jobs, targets, rules and keys for
    the whole inventory.
    """
    for monitored in _MONITORING:
        if form == monitored:
            if name != "monitoring":
                what = f"--as {form} is for all hosts together"
                step = "`corral export monitoring --as prometheus -o FOLDER`, or --as vmagent"
                raise CorralError(name, what, step)
            export_monitoring(monitored, output, inventory, force=force)
            return
    text = FORMS[form](_subject(name, inventory), templates(project_root()))
    if output is None:
        echo_file(text)
    else:
        _write(output, text, mode=0o755 if form == "script" else 0o644, force=force)


def _subject(name: str, chosen: Path | None) -> Subject:
    found = [
        (inventory, host, instance)
        for inventory in named((name,), chosen).read
        for host in inventory.hosts
        for instance in host.instance_names
        if instance in matching(host, (name,))
    ]
    if len(found) != 1:
        names = " and ".join(f"{host.name}/{one}" for _, host, one in found) or "no instance"
        raise CorralError(name, f"names {names}", "name one as HOST/INSTANCE, or give -i INVENTORY")
    plan = _plan(*found[0])
    instance = next(one for one in plan.instances if one.name == found[0][2])
    release = next(one for one in plan.releases if one.key == instance.release)
    return Subject(host=plan.host, instance=instance, release=release, kind=release.kind)


def _plan(inventory: Inventory, host: Host, name: str) -> HostPlan:
    """The plan of a deploy; where its neighbours cannot be planned, of the instance alone.

    Raises CorralError.
    """
    planner = load_planner(project_root(), tolerant=True)
    fleet = plan_fleet(inventory.hosts, planner, mistakes=inventory.mistakes)
    try:
        return fleet.select([f"{host.name}/{name}"]).plan(host.name)
    except CorralError as error:
        if host.name in inventory.mistakes:
            raise
        plan = planner.plan_alone(host, name, fleet.in_front(host))
        echo(f"{host.name}/{name} is shown as if it was alone on its host:", err=True)
        print_mistakes([error])
        return plan


def _write(path: Path, text: str, *, mode: int, force: bool) -> None:
    """Write a file atomically. Raises CorralError for an existing file, unless ``force``."""
    step = "choose another file with -o"
    if force:
        write_atomic(path, text, mode=mode, next_step=step)
    elif not create_atomic(path, text, mode=mode, next_step=step):
        raise CorralError(str(path), "exists already", "add --force to replace it")
