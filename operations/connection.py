"""pyinfra's own connection as the way to the host helper, for what runs within a deploy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paramiko import SSHException
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.host import Host

from corral.remote.bounded import Ended
from corral.remote.client import HelperClient
from corral.remote.unreached import UnreachedError

AGAIN = "run the same deploy again"


@dataclass(frozen=True)
class PyinfraTransport:
    """The connection of a host, which is not opened again once it is cut."""

    host: Host

    @property
    def name(self) -> str:
        """The host's, for errors."""
        return self.host.name

    def run(self, words: Sequence[str], sent: str, *, seconds: float) -> Ended:  # noqa: ARG002
        """How ``words`` ended; pyinfra has no limit for the answer. Raises UnreachedError."""
        command = StringCommand(*map(QuoteString, words))
        how = {**arguments(self.host), **({"_stdin": sent} if sent else {})}
        try:
            ok, output = self.host.run_shell_command(command, **how)
        except (OSError, SSHException, EOFError) as error:
            raise UnreachedError(self.name, "connection lost", AGAIN) from error
        if not ok and not output.stdout.strip() and not output.stderr.strip():
            # A channel that was cut, or a program that was killed: neither says anything.
            raise UnreachedError(self.name, "connection lost", AGAIN)
        return Ended(0 if ok else 1, output.stdout.encode(), output.stderr.encode())


def helper_on(host: Host, path: str) -> HelperClient:
    """The installed helper of the host of a running operation."""
    return HelperClient(PyinfraTransport(host), ("python3", "-I", path), otherwise=AGAIN)


def arguments(host: Host) -> dict[str, Any]:
    """How the host of a running operation is spoken to, such as with sudo."""
    return {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS
    }
