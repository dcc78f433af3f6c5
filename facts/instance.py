"""How the running instances of a host compare with their plan."""

from __future__ import annotations

import json

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.verification import Check


class Checks(FactBase[list[Check]]):
    """The helper's ``check``: every instance by process, by socket and by HTTP.

    + helper: path of the installed helper; + plan_json: the HostPlan.
    """

    def command(self, helper: str, plan_json: str) -> StringCommand:
        return StringCommand("python3", QuoteString(helper), "check", QuoteString(plan_json))

    @staticmethod
    def default() -> list[Check]:
        return []

    def process(self, output: list[str]) -> list[Check]:
        try:
            return [Check.model_validate(row) for row in json.loads("\n".join(output))]
        except (json.JSONDecodeError, ValueError) as error:
            raise FactProcessError(f"the helper's checks are not readable: {error}") from error
