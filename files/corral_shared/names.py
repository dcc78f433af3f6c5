"""Check names from outside that become paths, before they are joined to one."""

from __future__ import annotations

from urllib.parse import quote

# A file system allows 255 bytes a part; the rest is for what Corral adds to a name.
PART_BYTES = 200
PATH_BYTES = 1024


def file_name_problem(name: object) -> str | None:
    """Why a text cannot be the name of one file or folder, or None."""
    if not isinstance(name, str):
        return "is not text"
    if not name:
        return "is empty"
    if name in (".", ".."):
        return f"is {name}"
    if "/" in name:
        return "has a slash in it"
    # isprintable() excludes control, bidi and other format characters, surrogates, line separators.
    if not name.isprintable():
        return "has a character that is not printable"
    if len(name.encode()) > PART_BYTES:
        return f"is longer than {PART_BYTES} bytes"
    return None


def hub_path_problem(path: object) -> str | None:
    """Why a text cannot be a relative path of a file, with ``/`` between its parts, or None."""
    if not isinstance(path, str):
        return "is not text"
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is not relative"
    for part in path.split("/"):
        problem = file_name_problem(part)
        if problem:
            return f"has a part that {problem}"
    if len(path.encode()) > PATH_BYTES:
        return f"is longer than {PATH_BYTES} bytes"
    return None


# The receipt beside a file of weights. In the models root: the folder where weights arrive, and the
# marker that distinguishes the root from the empty folder on which it is mounted.
RECEIPT = ".receipt.json"
STAGING = ".staging"
MARKER = ".corral-models"


def weights_path_problem(path: object) -> str | None:
    """Why a text cannot be a path of weights in the models root, such as a name of Corral's own."""
    problem = hub_path_problem(path)
    if problem or not isinstance(path, str):
        return problem
    if path.split("/")[0] in (STAGING, MARKER):
        return f"begins with {path.split('/')[0]}, which is Corral's own"
    if path.endswith(RECEIPT):
        return f"ends with {RECEIPT}, which is Corral's own"
    return None


def quoted_path(path: str) -> str:
    """A path of a hub for an address: quoted, except for slashes."""
    return quote(path)
