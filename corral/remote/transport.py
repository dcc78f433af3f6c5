"""Transport by ssh(1): one connection for each command, as root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.remote.bounded import Ended, SilentError, TooMuchError, run_within
from corral.remote.root import root_refused
from corral.remote.ssh import not_runnable, ssh_command
from corral.remote.unreached import unreached

# ssh(1) has no other exit code for its own failures.
SSH_FAILED = 255


@dataclass(frozen=True)
class SshTransport:
    """Runs commands on a host by the connection keys of its data."""

    host: Host

    @property
    def name(self) -> str:
        """Name of the host, for errors."""
        return self.host.name

    def run(self, command: Sequence[str], sent: str, *, seconds: float) -> Ended:
        """Run a command. Raises UnreachedError, also where no answer came within ``seconds``.

        Raises CorralError where the login does not become root, or ssh(1) is not installed here.
        """
        ended = self._run(list(command), sent, seconds)
        errors = ended.err.decode(errors="replace").strip()
        if ended.code == SSH_FAILED:
            raise unreached(self.host, errors)
        if ended.code != 0 and (error := root_refused(self.host, errors)):
            raise error
        return ended

    def _run(self, command: list[str], sent: str, seconds: float) -> Ended:
        try:
            return run_within(ssh_command(self.host, command), sent.encode(), seconds=seconds)
        except SilentError as error:
            raise unreached(self.host, str(error)) from error
        except TooMuchError as error:
            raise CorralError(self.name, str(error), "check what answers there") from error
        except OSError as error:
            raise not_runnable(self.host, error) from error
