"""Names from outside that become paths: checked where they enter, before anything is joined."""

from __future__ import annotations

from urllib.parse import quote

# A file system takes 255 bytes a part; the rest is for what Corral puts around a name.
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
    # Not printable are control, bidi and other format characters, surrogates, line separators.
    if not name.isprintable():
        return "has a character that is not printable"
    if len(name.encode()) > PART_BYTES:
        return f"is longer than {PART_BYTES} bytes"
    return None


def hub_path_problem(path: object) -> str | None:
    """Why a text cannot be the path of a file below a folder, parts divided by ``/``, or None."""
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


# Beside weights: what proves them. Below the root of all repositories: where they arrive, and
# what tells that root from the empty folder on which it is mounted.
RECEIPT = ".receipt.json"
STAGING = ".staging"
MARKER = ".corral-models"


def weights_path_problem(path: object) -> str | None:
    """Why a text cannot be the path of weights below their root: also names of Corral's own."""
    problem = hub_path_problem(path)
    if problem or not isinstance(path, str):
        return problem
    if path.split("/")[0] in (STAGING, MARKER):
        return f"begins with {path.split('/')[0]}, which is Corral's own"
    if path.endswith(RECEIPT):
        return f"ends with {RECEIPT}, which is Corral's own"
    return None


def quoted_path(path: str) -> str:
    """A path of a hub as part of an address: slashes stay, what has a meaning there is quoted."""
    return quote(path)
