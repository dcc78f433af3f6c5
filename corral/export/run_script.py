"""An instance in an image as a script for people without root: start, stop, status, logs."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

from corral.export.subject import Subject
from corral.export.templates import render
from corral.plan.release import OwnImage
from corral.runtimes import UNPACK, program_kind

# Where the container sees the key file, and the server's own file of keys.
_SECRET, _FOLDER = "/run/secrets/api-keys", "/run/corral"


def run_script(subject: Subject, templates: Path) -> str:
    """A script that runs the very command line in the image, whoever starts it."""
    instance, artifact = subject.instance, subject.release.artifact
    runtime, endpoint = instance.runtime, instance.endpoint
    config = f"{_FOLDER}/{PurePosixPath(instance.credential_path).name}"
    prepare = subject.prepare(keys=_SECRET, config=config)
    socket = f"{_FOLDER}/{PurePosixPath(endpoint.socket).name}" if endpoint.socket else None
    words = subject.argv(keys=config if prepare else _SECRET)
    return render(
        "export-run.sh.j2",
        templates,
        s=subject,
        called=shlex.quote(instance.name),
        program=shlex.quote(runtime.program),
        image=shlex.quote(runtime.image or ""),
        sha256=artifact.sha256 if isinstance(artifact, OwnImage) else None,
        models=shlex.quote(runtime.binds[0].split(":")[0]),
        model=shlex.quote(_model(subject)),
        keys=shlex.quote(instance.key_path),
        address=subject.address,
        port=shlex.quote(str(endpoint.port or "")),
        socket=socket,
        secret=_SECRET,
        folder=_FOLDER if prepare or socket else None,
        options=_options(subject),
        prepare=" ".join(map(shlex.quote, prepare)),
        lines=_lines(subject, words, {str(endpoint.socket): socket} if socket else {}),
    )


def _model(subject: Subject) -> str:
    """The path of the model in the container: below the folder that is bound at /models."""
    source, target, _ = subject.instance.runtime.binds[0].split(":")
    return subject.instance.model_path.replace(source, target, 1)


def _options(subject: Subject) -> list[str]:
    """GPUs and variables, as the unit has them; variables with folders of the unit's are not."""
    runtime = subject.instance.runtime
    found = ["--nv"] if "--nv" in runtime.command else []
    found += [UNPACK[program_kind(runtime.program)]] if runtime.unpacks else []
    return [*found, *(f"--env {shlex.quote(f'{n}={v}')}" for n, v in subject.environment.items())]


def _lines(subject: Subject, words: list[str], others: dict[str, str]) -> list[str]:
    """Flags with their values, a line each; the model is a variable of the script."""
    lines: list[str] = []
    for word in (others.get(word, word) for word in words):
        shown = '"$model"' if word == _model(subject) else shlex.quote(word)
        if lines and not word.startswith("-") and lines[-1].startswith("--"):
            lines[-1] += f" {shown}"
        else:
            lines.append(shown)
    return lines
