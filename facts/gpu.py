"""GPUs and drivers of a host, asked again after they changed; before, they are in its state."""

from __future__ import annotations

import json

from pydantic import ValidationError
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.state import GpuHost


class Gpus(FactBase[GpuHost | None]):
    """The helper's ``gpus``.

    + helper: path of the installed helper; + plan_json: the HostPlan.
    None when the host could not be asked.
    """

    def command(self, helper: str, plan_json: str) -> StringCommand:
        return StringCommand("python3", QuoteString(helper), "gpus", QuoteString(plan_json))

    @staticmethod
    def default() -> None:
        return None

    def process(self, output: list[str]) -> GpuHost:
        try:
            return GpuHost.model_validate(json.loads("\n".join(output)))
        except (json.JSONDecodeError, ValidationError) as error:
            raise FactProcessError(f"the helper's gpus are not readable: {error}") from error
