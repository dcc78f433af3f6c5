"""The lab's services on the controller: the stand-in hub and the engines' git daemon."""

from __future__ import annotations

import socket
import sys
import time

from corral.errors import CorralError
from lab import processes
from lab.layout import GIT_PORT, HUB_PORT, Layout

_ANSWER_TIMEOUT_SECONDS = 60


def prepare(layout: Layout) -> None:
    """Write the files that the services serve; the lab's network is not needed yet."""
    # Imported here: the hub's tiny model needs gguf, which `list` and `down` do not.
    from lab import engine_source, hub

    hub.prepare(layout.hub)
    engine_source.ensure(layout.engine_source)


def start(layout: Layout) -> None:
    """Start the services that do not run, and wait until both answer on their ports."""
    _start("hub", _hub_argv(layout), layout, HUB_PORT)
    _start("git", _git_argv(layout), layout, GIT_PORT)


def _hub_argv(layout: Layout) -> list[str]:
    address = str(layout.controller_address)
    program = [sys.executable, "-m", "lab.hub"]
    return [*program, "--bind", address, "--port", str(HUB_PORT), "--root", str(layout.hub)]


def _git_argv(layout: Layout) -> list[str]:
    return [
        *("git", "daemon"),
        f"--listen={layout.controller_address}",
        f"--port={GIT_PORT}",
        f"--base-path={layout.engine_source}",
        "--export-all",
        "--reuseaddr",
    ]


def _start(name: str, argv: list[str], layout: Layout, port: int) -> None:
    found = processes.recorded(layout.run).get(name)
    if found is None or not processes.alive(found):
        processes.start(name, argv, run=layout.run, log=layout.log, cwd=layout.checkout)
    _wait_for_port(name, layout, port)


def _wait_for_port(name: str, layout: Layout, port: int) -> None:
    address = (str(layout.controller_address), port)
    deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
    while not _answers(address):
        record = processes.recorded(layout.run)[name]
        if time.monotonic() > deadline or not processes.alive(record):
            what = f"does not answer on {address[0]}:{port}"
            raise CorralError(f"the lab's {name}", what, f"read {layout.log / f'{name}.log'}")
        time.sleep(0.05)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
