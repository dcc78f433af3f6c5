"""An instance as a compose file of one service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from corral.export.subject import Subject
from corral.export.templates import render

# Where compose puts a secret.
_KEYS = "/run/secrets/api-keys"


def compose(subject: Subject, templates: Path) -> str:
    """A compose file that runs the host's own release, weights and keys in a container."""
    instance, endpoint = subject.instance, subject.instance.endpoint
    argv = subject.argv(keys=_KEYS)
    if endpoint.port:
        # The address of the plan is the host's; inside, the container has its own.
        argv = subject.argv(keys=_KEYS, address="0.0.0.0")  # noqa: S104
    return render(
        "export-compose.yaml.j2",
        templates,
        s=subject,
        argv=argv,
        environment={**subject.environment, **_visible(instance.gpus)},
        mounts=_mounts(subject),
        published=_published(subject),
        socket_folder=str(PurePosixPath(endpoint.socket).parent) if endpoint.socket else None,
        gpus=[str(gpu) for gpu in instance.gpus],
    )


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
    address = f"[{endpoint.address}]" if ":" in str(endpoint.address) else endpoint.address
    return f"{address}:{endpoint.port}:{endpoint.port}"


def _visible(gpus: Sequence[int | str]) -> dict[str, str]:
    """A container sees only its GPUs, renumbered in the host's order; a UUID stays."""
    in_order = sorted(gpu for gpu in gpus if isinstance(gpu, int))
    seen = (in_order.index(gpu) if isinstance(gpu, int) else gpu for gpu in gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, seen))} if gpus else {}
