"""Types of names that come from outside and become paths."""

from __future__ import annotations

import re
from typing import Annotated

from corral_shared.names import file_name_problem, hub_path_problem
from corral_shared.text import printable
from pydantic import AfterValidator

from corral.errors import CorralError

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96}")


def _file_name(name: str) -> str:
    if problem := file_name_problem(name):
        raise ValueError(f"{printable(name)!r} {problem}")
    return name


def _hub_path(path: str) -> str:
    if problem := hub_path_problem(path):
        raise ValueError(f"{printable(path)!r} {problem}")
    return path


def _repository(repository: str) -> str:
    if not _REPOSITORY.fullmatch(repository) or hub_path_problem(repository):
        raise ValueError(f"{printable(repository)!r} is not organisation/name")
    return repository


MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
"""A moment as the host helper writes it, UTC. Digits are those of ASCII: \\d has more."""

FileName = Annotated[str, AfterValidator(_file_name)]
"""One part of a path: no slash, not ``.`` or ``..``, printable, at most 200 bytes."""

HubPath = Annotated[str, AfterValidator(_hub_path)]
"""The path of a file in a repository, relative, each part a ``FileName``."""


Repository = Annotated[str, AfterValidator(_repository)]
"""A repository of a hub, as ``organisation/name``."""


HostName = HubPath
"""pyinfra's name of a host; that of a connector has parts, as in ``@docker/debian``."""


def safe_host_name(name: str, *, where: str, next_step: str) -> str:
    """``name``, if it can be a folder of a store, or a path of them. Raises CorralError."""
    if problem := hub_path_problem(name):
        raise CorralError(where, f"the name {name!r} {problem}", next_step)
    return name


def safe_file_name(name: str, *, where: str, next_step: str) -> str:
    """``name``, if it can be one part of a path. Raises CorralError."""
    if problem := file_name_problem(name):
        raise CorralError(where, f"the name {name!r} {problem}", next_step)
    return name
