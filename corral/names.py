"""Types of names from users and servers that become paths or arguments."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from corral_shared.names import file_name_problem, hub_path_problem, weights_path_problem
from corral_shared.text import printable
from pydantic import AfterValidator

from corral.errors import CorralError

# Protocols that git may use, on the controller and on hosts.
GIT_PROTOCOLS = ("file", "git", "http", "https", "ssh")

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SCHEME = re.compile(r"([A-Za-z0-9+.-]+):(?://|:)")
# From git-check-ref-format(1); a pattern would match other references, too.
_NOT_IN_REFERENCES = re.compile(r"[\s~^:?*\[\\]|\.\.|@\{|//")
_FOLDER = re.compile(r"/[A-Za-z0-9._+@:~/-]{1,200}")
# ProtectHome=, PrivateTmp= and PrivateDevices= of a unit hide these; the kernel makes the others.
_HIDDEN_FROM_SERVERS = (
    "/home", "/root", "/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys",  # noqa: S108 - not used
)  # fmt: skip
_CORRALS_OWN = (
    "/opt/corral", "/etc/corral", "/usr/local/lib/corral", "/var/cache/corral",
    *(f"/var/lib/corral/{name}" for name in ("archives", "instances", "jobs", "locks")),
)  # fmt: skip
_HUB_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")


def _file_name(name: str) -> str:
    if problem := file_name_problem(name):
        raise ValueError(f"{printable(name)!r} {problem}")
    return name


def _hub_path(path: str) -> str:
    if problem := hub_path_problem(path):
        raise ValueError(f"{printable(path)!r} {problem}")
    return path


def _weights_path(path: str) -> str:
    if problem := weights_path_problem(path):
        raise ValueError(f"{printable(path)!r} {problem}")
    return path


def _repository(repository: str) -> str:
    if not _REPOSITORY.fullmatch(repository) or weights_path_problem(repository):
        raise ValueError(f"{printable(repository)!r} is not organisation/name")
    return repository


def _git_url(url: str) -> str:
    _refuse_option(url)
    scheme = _SCHEME.match(url)
    # `ext::COMMAND` would run a command.
    if scheme and (scheme[0].endswith("::") or scheme[1].lower() not in GIT_PROTOCOLS):
        known = ", ".join(GIT_PROTOCOLS)
        raise ValueError(f"{printable(url)!r} is none of {known}, nor host:path or a folder")
    return url


def _git_reference(reference: str) -> str:
    _refuse_option(reference)
    if _NOT_IN_REFERENCES.search(reference) or reference.strip("./") != reference:
        raise ValueError(f"{printable(reference)!r} is no commit, tag or branch")
    return reference


def _refuse_option(text: str) -> None:
    if not text or not text.isprintable() or text.startswith("-"):
        raise ValueError(f"{printable(text)!r} is empty, begins with - or is not printable")


def _hub_url(url: str) -> str:
    if not url.isprintable() or not _HUB_URL.fullmatch(url) or not _has_port_or_none(url):
        raise ValueError(f"{printable(url)!r} is not http(s)://host[:port][/path]")
    return url


def _has_port_or_none(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _models_folder(folder: str) -> str:
    """``folder`` without a slash at its end or twice in a row."""
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"{printable(folder)!r} is not /folder, of letters, digits and ._+@:~-")
    clean = "/" + "/".join(filter(None, folder.split("/")))
    if {".", ".."} & set(clean.split("/")) or clean == "/":
        raise ValueError(f"{folder!r} is not the folder's own path")
    for hidden in _HIDDEN_FROM_SERVERS:
        if f"{clean}/".startswith(f"{hidden}/"):
            elsewhere = f"mount it elsewhere: mount --bind {clean} /srv/models"
            raise ValueError(
                f"{folder!r} is in {hidden}, which the sandbox of servers replaces; {elsewhere}"
            )
    for own in _CORRALS_OWN:
        if f"{clean}/".startswith(f"{own}/") or f"{own}/".startswith(f"{clean}/"):
            raise ValueError(f"{folder!r} is where Corral keeps other things, in {own}")
    return clean


def is_commit(reference: str) -> bool:
    """Whether ``reference`` is a full commit digest."""
    return _COMMIT.fullmatch(reference) is not None


MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
"""A timestamp as the host helper writes it, in UTC. ASCII digits only: \\d matches more."""


FileName = Annotated[str, AfterValidator(_file_name)]
"""One part of a path: no slash, not ``.`` or ``..``, printable, at most 200 bytes."""

HubPath = Annotated[str, AfterValidator(_hub_path)]
"""The path of a file in a repository, relative, each part a ``FileName``."""

WeightsPath = Annotated[str, AfterValidator(_weights_path)]
"""A HubPath of a file on hosts: none of the names that Corral uses beside weights."""


Repository = Annotated[str, AfterValidator(_repository)]
"""A repository of a hub, as ``organisation/name``."""

GitUrl = Annotated[str, AfterValidator(_git_url)]
"""A URL that git fetches from: no option, no remote helper that runs a command."""

GitReference = Annotated[str, AfterValidator(_git_reference)]
"""A commit, tag or branch of git or of a hub: no option, no pattern."""

HubUrl = Annotated[str, AfterValidator(_hub_url)]
"""The address of a hub, by http or https."""


ModelsFolder = Annotated[str, AfterValidator(_models_folder)]
"""An absolute folder on a host that servers can see, without a slash at its end."""


HostName = HubPath
"""pyinfra's name of a host; a connector's name has parts, as in ``@docker/debian``."""


def safe_host_name(name: str, *, where: str, next_step: str) -> str:
    """``name``, if it can be a folder of a store or a path of folders. Raises CorralError."""
    if problem := hub_path_problem(name):
        raise CorralError(where, f"the name {name!r} {problem}", next_step)
    return name


def safe_file_name(name: str, *, where: str, next_step: str) -> str:
    """``name``, if it can be one part of a path. Raises CorralError."""
    if problem := file_name_problem(name):
        raise CorralError(where, f"the name {name!r} {problem}", next_step)
    return name
