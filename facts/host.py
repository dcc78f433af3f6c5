"""What a host has of its plan, in one round trip."""

from __future__ import annotations

import json

from pydantic import ValidationError
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.state import HostState

# Says so in the helper's stead where there is no Python to run it.
_NO_PYTHON = '{"missing_commands": ["python3"]}'


class State(FactBase[HostState | None]):
    """The helper's ``state``: run from standard input, so a bare host needs nothing but python3.

    + plan_json: the HostPlan; + bootstrap: Python that loads the helper from standard input.
    None when the host could not be asked. Give the helper itself as ``_stdin``.
    """

    def command(self, plan_json: str, bootstrap: str) -> StringCommand:
        helper = StringCommand(
            "python3", "-c", QuoteString(bootstrap), "state", QuoteString(plan_json)
        )
        return StringCommand(
            "if command -v python3 >/dev/null; then", helper, ";",
            "else cat >/dev/null; echo", QuoteString(_NO_PYTHON), "; fi",
        )  # fmt: skip

    @staticmethod
    def default() -> None:
        return None

    def process(self, output: list[str]) -> HostState:
        try:
            return HostState.model_validate(json.loads("\n".join(output)))
        except (json.JSONDecodeError, ValidationError) as error:
            raise FactProcessError(f"the helper's state is not readable: {error}") from error
