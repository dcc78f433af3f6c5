"""What a host has of its plan, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from corral_shared.text import printable_line
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.host.answers import STATE
from corral.host.reading import UnreadableError, read_answer
from corral.host.state import HostState

# Says so in the helper's stead where there is no Python to run it.
_NO_PYTHON = '{"missing_commands": ["python3"]}'


_NOT_ROOT = "corral: not root:"


class State(FactBase[HostState | None]):
    """The helper's ``state``: run from standard input, so a bare host needs nothing but python3.

    + bootstrap: Python that loads the helper from standard input
    + become: words before a command that make it root's, such as sudo; none: the login is root.
      It is proved before anything else; give pyinfra's own keys as False then. None: nothing is
    None when the host could not be asked. Give the helper itself, encoded, and then the HostPlan
    as lines of ``_stdin``.
    """

    def command(self, bootstrap: str, become: Sequence[str] | None = None) -> StringCommand:
        words = [QuoteString(word) for word in become or ()]
        helper = StringCommand(*words, "python3", "-I", "-c", QuoteString(bootstrap), "state")
        command = StringCommand(
            "if command -v python3 >/dev/null; then", helper, ";",
            "else cat >/dev/null; echo", QuoteString(_NO_PYTHON), "; fi",
        )  # fmt: skip
        if become is None:
            return command
        # Not by the exit code: pyinfra would ask for a password. Warnings go beside the number.
        who = StringCommand(*words, "id -u </dev/null")
        return StringCommand(
            "if test \"$(", who, "2>/dev/null )\" = 0; then", command, ";",
            "else cat >/dev/null; echo", QuoteString(_NOT_ROOT), '"$(', who, '2>&1 | tail -n 1 )"',
            "; fi",
        )  # fmt: skip

    @staticmethod
    def default() -> None:
        return None

    def process(self, output: list[str]) -> HostState:
        for line in output:
            if line.startswith(_NOT_ROOT):
                return HostState(not_root=printable_line(line[len(_NOT_ROOT) :].strip()))
        try:
            return read_answer(STATE, "\n".join(output))
        except UnreadableError as error:
            raise FactProcessError(f"the helper's state is not readable: {error}") from error
