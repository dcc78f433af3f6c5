"""`corral export`: what the deploy would run, in another form."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.select import inventory_option, select_hosts
from corral.errors import CorralError
from corral.export import FORMS
from corral.export.subject import Subject
from corral.files import create_atomic, write_atomic
from corral.project import project_root, read_catalog
from corral.terminal import say_file


@click.command()
@click.argument("name", metavar="INSTANCE|HOST/INSTANCE")
@click.option("--as", "form", type=click.Choice(list(FORMS)), required=True, help="What to write.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file; not the screen.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@inventory_option
def export(name: str, form: str, output: Path | None, force: bool, inventory: Path | None) -> None:
    """Print what a deploy would run as an .env file, a start script or a compose file."""
    text = FORMS[form](_subject(name, inventory), project_root() / "templates")
    if output is None:
        say_file(text)
    else:
        _write(output, text, mode=0o755 if form == "script" else 0o644, force=force)


def _subject(name: str, inventory: Path | None) -> Subject:
    found = [(plan, i) for _, plan in select_hosts((name,), inventory) for i in plan.instances]
    if len(found) != 1:
        names = " and ".join(f"{plan.host}/{i.name}" for plan, i in found) or "no instance"
        raise CorralError(name, f"names {names}", "name one as HOST/INSTANCE, or give -i INVENTORY")
    plan, instance = found[0]
    release = next(release for release in plan.releases if release.key == instance.release)
    engine = read_catalog(project_root()).engines[release.engine]
    return Subject(host=plan.host, instance=instance, release=release, kind=engine.kind)


def _write(path: Path, text: str, *, mode: int, force: bool) -> None:
    """Whole or not at all. Raises CorralError for a file that is there, unless ``force``."""
    step = "choose another file with -o"
    if force:
        write_atomic(path, text, mode=mode, next_step=step)
    elif not create_atomic(path, text, mode=mode, next_step=step):
        raise CorralError(str(path), "is there already", "add --force to replace it")
