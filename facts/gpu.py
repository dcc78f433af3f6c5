"""GPUs and drivers of a host, asked again after they changed; before, they are in its state."""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from corral.host.answers import GPUS
from corral.host.reading import UnreadableError, read_answer
from corral.host.state import GpuHost


class Gpus(FactBase[GpuHost | None]):
    """The helper's ``gpus``.

    + helper: path of the installed helper. None when the host could not be asked.
    Give the HostPlan as ``_stdin``.
    """

    def command(self, helper: str) -> StringCommand:
        return StringCommand("python3", "-I", QuoteString(helper), "gpus")

    @staticmethod
    def default() -> None:
        return None

    def process(self, output: list[str]) -> GpuHost:
        try:
            return read_answer(GPUS, "\n".join(output))
        except UnreadableError as error:
            raise FactProcessError(f"the helper's gpus are not readable: {error}") from error
