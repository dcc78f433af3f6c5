"""What a host has of its plan, in one round trip."""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.answers import STATE
from corral.reading import UnreadableError, read_answer
from corral.state import HostState

# Says so in the helper's stead where there is no Python to run it.
_NO_PYTHON = '{"missing_commands": ["python3"]}'


class State(FactBase[HostState | None]):
    """The helper's ``state``: run from standard input, so a bare host needs nothing but python3.

    + bootstrap: Python that loads the helper from standard input.
    None when the host could not be asked. Give the helper itself, encoded, and then the HostPlan
    as lines of ``_stdin``.
    """

    def command(self, bootstrap: str) -> StringCommand:
        helper = StringCommand("python3", "-I", "-c", QuoteString(bootstrap), "state")
        return StringCommand(
            "if command -v python3 >/dev/null; then", helper, ";",
            "else cat >/dev/null; echo", QuoteString(_NO_PYTHON), "; fi",
        )  # fmt: skip

    @staticmethod
    def default() -> None:
        return None

    def process(self, output: list[str]) -> HostState:
        try:
            return read_answer(STATE, "\n".join(output))
        except UnreadableError as error:
            raise FactProcessError(f"the helper's state is not readable: {error}") from error
