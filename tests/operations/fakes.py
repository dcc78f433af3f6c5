"""pyinfra's own @fake hosts: commands that they receive, and scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyinfra.api import Config, Inventory, State
from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.connect import connect_all
from pyinfra.api.host import Host
from pyinfra.context import ctx_host, ctx_state

AT_ONCE = {"fake_delay": 0, "fake_delay_jitter": 0}


def connected(hosts: Mapping[str, Mapping[str, Any]], limit: Collection[str] = ()) -> State:
    """A state with these hosts connected; each value is host data. ``limit``: as --limit."""
    names = [(f"@fake/{name}", dict(data)) for name, data in hosts.items()]
    inventory = Inventory((names, AT_ONCE))  # type: ignore[no-untyped-call]
    config = Config()  # type: ignore[no-untyped-call]
    limited = [inventory.get_host(f"@fake/{name}") for name in limit] or None
    state = State(inventory, config, initial_limit=limited, check_for_changes=False)
    connect_all(state)
    return state


@contextmanager
def prepared(responses: Mapping[str, Any] | None = None) -> Iterator[Host]:
    """One fake host in pyinfra's context, as an operation finds it."""
    state = connected({"one": {"fake_responses": dict(responses or {})}})
    host = state.inventory.get_host("@fake/one")
    with ctx_state.use(state), ctx_host.use(host):
        yield host


def commands(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> list[PyinfraCommand]:
    """What an operation yields for the host in context."""
    inner: Callable[..., Iterator[PyinfraCommand]] = operation._inner  # type: ignore[attr-defined]
    return list(inner(*args, **kwargs))


def text(command: PyinfraCommand) -> str:
    """All text of a command that a process list or a log could show."""
    if isinstance(command, StringCommand):
        return f"{command.get_raw_value()}\n{command.get_masked_value()}"
    assert isinstance(command, FunctionCommand)
    return f"{command.function.__name__} {command.args} {command.kwargs}"


def stdin(command: PyinfraCommand) -> str:
    """What a command reads from standard input."""
    found = command.connector_arguments["_stdin"]
    assert isinstance(found, str)
    return found


def asked(host: Host) -> list[str]:
    """Commands that a host received, in order."""
    connector: Any = host.connector
    return list(connector.executed_commands)
