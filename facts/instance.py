"""How the running instances of a host compare with their plan."""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.host.answers import CHECKS
from corral.host.checks import Check
from corral.host.reading import UnreadableError, read_answer


class Checks(FactBase[list[Check]]):
    """The helper's ``check``: every instance by process, by socket and by HTTP.

    + helper: path of the installed helper. Give the HostPlan as ``_stdin``.
    """

    def command(self, helper: str) -> StringCommand:
        return StringCommand("python3", "-I", QuoteString(helper), "check")

    @staticmethod
    def default() -> list[Check]:
        return []

    def process(self, output: list[str]) -> list[Check]:
        try:
            return read_answer(CHECKS, "\n".join(output))
        except UnreadableError as error:
            raise FactProcessError(f"the helper's checks are not readable: {error}") from error
