"""Apptainer, or Singularity: the server runs in an image, its weights are at /models.

Measured with apptainer 1.4.5 under systemd 257; SingularityCE by its release notes (4.1).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from corral.plan.release import ImageCompression
from corral.plan.runtime import RuntimePlan
from corral.runtimes.base import Sandbox, Start

ProgramKind = Literal["apptainer", "singularity"]

MODELS = "/models"
# What systemd's specifier %C stands for in a unit of the system.
_CACHES = "/var/cache"
# A namespace of users and mounts is how it starts without privileges; in those of processes and
# IPC, --containall puts the server. It drops capabilities and changes user in its own namespace.
_NAMESPACES = "user mnt pid ipc"
_SYSTEM_CALLS = (
    *("mount", "umount2", "pivot_root"),
    *("capset", "setgroups", "setresgid", "setresuid"),
)
# Unpack the image at the start, in place of mounting it.
UNPACK: dict[ProgramKind, str] = {"apptainer": "--unsquash", "singularity": "--tmp-sandbox"}
# Of images made by Corral. SingularityCE 4.1.1 refuses zstd ("unknown compression algorithm value
# 6"); apptainer takes both, of which zstd is read faster.
COMPRESSIONS: dict[ProgramKind, ImageCompression] = {"apptainer": "zstd", "singularity": "gzip"}
# Nothing of the host but what is bound: no home, no /tmp, no variables, own processes.
_CLOSED = ("--containall", "--cleanenv", "--no-home")

# Of SingularityCE: without its setuid starter, which a unit's NoNewPrivileges= would stop.
_UNPRIVILEGED = "--userns"


def program_kind(program: str) -> ProgramKind:
    """Whose options a program has, by its name; preflight compares it with the host's."""
    return "singularity" if PurePosixPath(program).name == "singularity" else "apptainer"


def unpacks(program: str, image: str | None, *, asked: bool) -> bool:
    """Whether each start unpacks the image; SingularityCE mounts no image but a .sif file."""
    mounts = program_kind(program) == "apptainer" or PurePosixPath(image or "").suffix == ".sif"
    return asked or not mounts


class Apptainer:
    """See corral.runtimes.base.Runtime."""

    kind = "apptainer"
    # libnss-systemd: else it does not know the user that systemd gives a unit.
    packages: tuple[str, ...] = ("libnss-systemd", "squashfuse")

    def weights(self, path: str, models: str) -> str:
        """The path in the container, below /models."""
        inside = PurePosixPath(path)
        if not inside.is_relative_to(models):
            return path
        return f"{MODELS}/{inside.relative_to(models)}"

    def sandbox(self, *, unpacks: bool) -> Sandbox:
        """With KillMode=control-group the server would lose its files before it has stopped."""
        return Sandbox(
            kill_mode="mixed",
            namespaces=_NAMESPACES,
            system_calls=_SYSTEM_CALLS,
            devices=() if unpacks else ("/dev/fuse",),
        )

    def plan(self, start: Start) -> RuntimePlan:
        """``apptainer exec`` with all that the server may see."""
        reads = (f"{start.models}:{MODELS}:ro", *(f"{path}:{path}:ro" for path in start.reads))
        binds = (*reads, *(f"{path}:{path}:rw" for path in start.writes))
        kind = program_kind(start.program)
        variables = {n: value.replace("%C", _CACHES) for n, value in start.variables.items()}
        command = (
            start.program,
            "--quiet",
            "exec",
            *_CLOSED,
            *(("--nv",) if start.gpus else ()),
            *((_UNPRIVILEGED,) if kind == "singularity" else ()),
            *((UNPACK[kind],) if start.unpacks else ()),
            *(word for bind in binds for word in ("--bind", bind)),
            *(word for n, value in variables.items() for word in ("--env", f"{n}={value}")),
            start.image or "",
        )
        return RuntimePlan(
            kind="apptainer",
            command=command,
            image=start.image,
            binds=binds,
            program=start.program,
            unpacks=start.unpacks,
        )
