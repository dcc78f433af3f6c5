"""What an export is about, and what its unit says beside the command line."""

from __future__ import annotations

from corral.catalog.entries import EngineKind
from corral.engines import engine_module
from corral.plan.instance import InstancePlan
from corral.plan.release import ReleasePlan
from corral.schema import Frozen


class Subject(Frozen):
    """One instance of one host, with the release that serves it."""

    host: str
    instance: InstancePlan
    release: ReleasePlan
    kind: EngineKind

    @property
    def name(self) -> str:
        """As `corral` takes it."""
        return f"{self.host}/{self.instance.name}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the unit; those with a specifier name folders of the unit's own."""
        return {n: value for n, value in self.instance.environment.items() if "%" not in value}

    @property
    def locks_memory(self) -> bool:
        """Whether the unit may lock the weights in memory."""
        return "LimitMEMLOCK=infinity" in self._lines

    def argv(self, **values: str) -> list[str]:
        """The command line, with other values for what some of its flags say: ``keys="/x"``.

        + values: by what is said, see ``Engine.says``
        """
        words, says = list(self.instance.argv), engine_module(self.kind).says
        for what, value in values.items():
            words[words.index(says[what]) + 1] = value
        return words

    @property
    def _lines(self) -> list[str]:
        return self.instance.unit_text.splitlines()
