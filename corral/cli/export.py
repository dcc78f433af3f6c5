"""`corral export`: what the deploy would run, in another form."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from corral.catalog import load_catalog
from corral.cli.select import inventory_option, select
from corral.errors import CorralError
from corral.export import FORMS
from corral.export.subject import Subject
from corral.project import project_root


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
        click.echo(text, nl=False)
    else:
        _write(output, text, mode=0o755 if form == "script" else 0o644, force=force)


def _subject(name: str, inventory: Path | None) -> Subject:
    found = [(plan, i) for _, plan in select((name,), inventory) for i in plan.instances]
    if len(found) != 1:
        names = " and ".join(f"{plan.host}/{i.name}" for plan, i in found) or "no instance"
        raise CorralError(name, f"names {names}", "name one as HOST/INSTANCE, or give -i INVENTORY")
    plan, instance = found[0]
    release = next(release for release in plan.releases if release.key == instance.release)
    engine = load_catalog(project_root() / "catalog").engines[release.engine]
    return Subject(host=plan.host, instance=instance, release=release, kind=engine.kind)


def _write(path: Path, text: str, *, mode: int, force: bool) -> None:
    """Whole or not at all. Raises CorralError for a file that is there, unless ``force``."""
    try:
        _place(path, text, mode=mode, force=force)
    except FileExistsError as error:
        raise CorralError(str(path), "is there already", "add --force to replace it") from error
    except OSError as error:
        next_step = "choose another file with -o"
        raise CorralError(str(path), f"cannot be written: {error.strerror}", next_step) from error


def _place(path: Path, text: str, *, mode: int, force: bool) -> None:
    """Raises OSError, of it FileExistsError for a file that is there, unless ``force``."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)
        if force:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
