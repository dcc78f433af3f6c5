"""An instance as a start script for bash."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

from corral.export.run_script import run_script
from corral.export.subject import Subject
from corral.export.templates import render

# Stand for files that only the script knows; no argument of a server has this character.
_KEYS, _CONFIG = "\0keys", "\0config"


def script(subject: Subject, templates: Path) -> str:
    """A script that runs the very command line, with the host's key file in the unit's place."""
    instance = subject.instance
    if instance.runtime.image:
        return run_script(subject, templates)
    socket = instance.endpoint.socket
    return render(
        "export-script.sh.j2",
        templates,
        s=subject,
        program=shlex.quote(instance.argv[0]),
        model=shlex.quote(instance.model_path),
        keys=shlex.quote(instance.key_path),
        prepare=_prepare(subject),
        config_name=PurePosixPath(instance.credential_path).name,
        socket=shlex.quote(socket) if socket else None,
        environment=[f"{name}={shlex.quote(value)}" for name, value in subject.environment.items()],
        lines=_lines(subject),
    )


def _prepare(subject: Subject) -> str:
    command = subject.prepare(keys=_KEYS, config=_CONFIG)
    return " ".join(_words(subject, command, {_KEYS: '"$keys"', _CONFIG: '"$config"'}))


def _words(subject: Subject, command: list[str], files: dict[str, str]) -> list[str]:
    """Quoted words, with variables of the script in the places of program, model and files."""
    instance = subject.instance
    variables = {instance.argv[0]: '"$program"', instance.model_path: '"$model"', **files}
    return [variables.get(word) or shlex.quote(word) for word in command]


def _lines(subject: Subject) -> list[str]:
    """Flags with their values, a line each; what the script's variables say is left to them."""
    keys = '"$config"' if subject.instance.prepare else '"$keys"'
    words = _words(subject, subject.argv(keys=_KEYS), {_KEYS: keys})
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("--"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
