"""`corral init`: a fleet's own folder, for an installed Corral."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import click

from corral.cli.views.new_fleet import files_of_fleet
from corral.errors import CorralError
from corral.files import create_atomic, writing
from corral.terminal import echo

_STEP = "name a new or an empty folder"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make FOLDER the repository of a fleet: inventories, its own catalog entries, lock file.

    Corral's own catalog lies under that of the fleet. Run again, it adds what is missing.
    """
    wanted = files_of_fleet(version("corral"))
    others = [name for name, text in wanted.items() if _is_another(folder / name, text)]
    if others:
        what = f"has files of other content: {', '.join(others)}"
        raise CorralError(str(folder), what, _STEP)
    for name, text in wanted.items():
        path = folder / name
        with writing(path, next_step="free disk space there, or name another folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
        create_atomic(path, text, next_step="free disk space there, then run it again")
    _make_repository(folder)
    echo(f"{folder} is ready. Next: cd {folder}, describe a host in inventories/prod.py, then")
    echo("`corral lock inventories/prod.py` and `corral plan HOST`")


def _is_another(path: Path, text: str) -> bool:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return True
    with writing(path, next_step=_STEP):
        return path.is_file() and path.read_bytes() != text.encode()


def _make_repository(folder: Path) -> None:
    """A repository of git, unless it is in one, or git is missing."""
    if not shutil.which("git"):
        return
    git = ["git", "-C", str(folder)]
    inside = subprocess.run([*git, "rev-parse", "--git-dir"], capture_output=True, check=False)
    if inside.returncode:
        done = subprocess.run([*git, "init", "--quiet"], capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise CorralError(str(folder), f"git init failed: {reason}", "run it there yourself")
