"""An instance as a compose file of one service."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from corral.export.subject import Subject
from corral.export.templates import render

# Where compose puts a secret.
_KEYS = "/run/secrets/api-keys"
# A tmpfs of the container.
_TEMPORARY = "/tmp"  # noqa: S108


def compose(subject: Subject, templates: Path) -> str:
    """A compose file that runs the host's own release, weights and keys in a container."""
    subject.refuse_image("a compose file")
    instance, endpoint = subject.instance, subject.instance.endpoint
    config = f"{_TEMPORARY}/{PurePosixPath(instance.credential_path).name}"
    keys = config if instance.prepare else _KEYS
    # The address of the plan is the host's; inside, the container has its own.
    argv = subject.argv(keys=keys, address="0.0.0.0" if endpoint.port else None)  # noqa: S104
    prepare = subject.prepare(keys=_KEYS, config=config)
    return render(
        "export-compose.yaml.j2",
        templates,
        s=subject,
        argv=argv,
        entrypoint=_entrypoint(argv[0], prepare, endpoint.socket),
        temporary=f"{_TEMPORARY}:exec" if subject.needs.home_in_cache else _TEMPORARY,
        environment={**subject.environment, **_home(subject), **_visible(instance.gpus)},
        mounts=_mounts(subject),
        published=_published(subject),
        socket_folder=str(PurePosixPath(endpoint.socket).parent) if endpoint.socket else None,
        gpus=[str(gpu) for gpu in instance.gpus],
    )


def _entrypoint(program: str, prepare: Sequence[str], socket: str | None) -> list[str]:
    """The program, with a shell before it that does what the unit does before its start."""
    # The server does not remove its socket, and does not start if the file exists.
    steps = ['rm -f -- "$0"'] if socket else []
    steps += [shlex.join(prepare)] if prepare else []
    if not steps:
        return [program]
    return ["/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), socket or "sh", program]


def _home(subject: Subject) -> dict[str, str]:
    return {"HOME": _TEMPORARY} if subject.needs.home_in_cache else {}


def _mounts(subject: Subject) -> list[str]:
    """Folders and files of the host that the server reads, at the same paths."""
    weights = {str(PurePosixPath(shard).parent) for shard in subject.instance.shards}
    template = subject.instance.chat_template_path
    return [subject.release.folder, *sorted(weights), *([template] if template else [])]


def _published(subject: Subject) -> str | None:
    """``address:port:port``, as compose publishes a port."""
    endpoint = subject.instance.endpoint
    if endpoint.port is None:
        return None
    listens = subject.address
    address = f"[{listens}]" if ":" in str(listens) else listens
    return f"{address}:{endpoint.port}:{endpoint.port}"


def _visible(gpus: Sequence[int | str]) -> dict[str, str]:
    """A container sees only its GPUs, renumbered in the host's order; a UUID stays."""
    in_order = sorted(gpu for gpu in gpus if isinstance(gpu, int))
    seen = (in_order.index(gpu) if isinstance(gpu, int) else gpu for gpu in gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, seen))} if gpus else {}
