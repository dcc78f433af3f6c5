"""An instance as a start script for bash."""

from __future__ import annotations

import shlex
from pathlib import Path

from corral.export.subject import Subject
from corral.export.templates import render


def script(subject: Subject, templates: Path) -> str:
    """A script that runs the very command line, with the host's key file in the unit's place."""
    instance = subject.instance
    socket = instance.endpoint.socket
    return render(
        "export-script.sh.j2",
        templates,
        s=subject,
        program=shlex.quote(instance.argv[0]),
        model=shlex.quote(instance.model_path),
        keys=shlex.quote(instance.key_path),
        socket=shlex.quote(socket) if socket else None,
        environment=[f"{name}={shlex.quote(value)}" for name, value in subject.environment.items()],
        lines=_lines(subject),
    )


def _lines(subject: Subject) -> list[str]:
    """Flags with their values, a line each; what the script's variables say is left to them."""
    instance = subject.instance
    variables = {
        instance.argv[0]: '"$program"',
        instance.model_path: '"$model"',
        instance.credential_path: '"$keys"',
    }
    words = [variables.get(word) or shlex.quote(word) for word in instance.argv]
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("--"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
