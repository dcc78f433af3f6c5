"""ssh(1) as the way to a host: a connection for each command, as root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.remote.bounded import Ended, SilentError, TooMuchError, run_within
from corral.remote.root import refused
from corral.remote.ssh import ssh_command
from corral.remote.unreached import unreached

# ssh(1) has no other exit code for its own failures.
SSH_FAILED = 255


@dataclass(frozen=True)
class SshTransport:
    """Reaches a host by the keys of its data."""

    host: Host

    @property
    def name(self) -> str:
        """The host's, for errors."""
        return self.host.name

    def run(self, words: Sequence[str], sent: str, *, seconds: float) -> Ended:
        """How ``words`` ended. Raises UnreachedError, also where nothing came within ``seconds``.

        Raises CorralError where the login does not become root, or ssh(1) is not here.
        """
        ended = self._run(list(words), sent, seconds)
        said = ended.err.decode(errors="replace").strip()
        if ended.code == SSH_FAILED:
            raise unreached(self.host, said)
        if ended.code != 0 and (error := refused(self.host, said)):
            raise error
        return ended

    def _run(self, words: list[str], sent: str, seconds: float) -> Ended:
        try:
            return run_within(ssh_command(self.host, words), sent.encode(), seconds=seconds)
        except SilentError as error:
            raise unreached(self.host, str(error)) from error
        except TooMuchError as error:
            raise CorralError(self.name, str(error), "look at what answers there") from error
        except OSError as error:
            step = f"see that `{ssh_command(self.host, [])[0]}` can be run here"
            raise CorralError(self.name, str(error), step) from error
