"""Ask the helper that is installed on a host: a connection for each question."""

from __future__ import annotations

import getpass
import platform
from typing import TypeVar

from pydantic import TypeAdapter

from corral.inventory.hosts import Host
from corral.remote.asking import ask_helper

T = TypeVar("T")


def ask(host: Host, helper: str, words: list[str], shape: TypeAdapter[T], text: str = "") -> T:
    """The answer to a command of the helper; ``text`` is its standard input.

    Raises UnreachedError when the connection failed, CorralError when the helper did.
    """
    return ask_helper(host, ["python3", "-I", helper, *words], text, shape, command=words[0])


def operator() -> str:
    """Who asks, for locks and journals."""
    return f"{getpass.getuser()} on {platform.node()}"
