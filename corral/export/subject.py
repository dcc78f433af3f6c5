"""The subject of an export: an instance, its release, and settings of its unit."""

from __future__ import annotations

from corral.catalog.entries import EngineKind
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
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host}/{self.instance.name}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the unit; those with a specifier name folders of the unit's own."""
        return {n: value for n, value in self.instance.environment.items() if "%" not in value}

    @property
    def locks_memory(self) -> bool:
        """Whether the unit may lock the weights in memory."""
        return self.instance.locks_memory

    def argv(self, *, keys: str, address: str | None = None) -> list[str]:
        """The command line, with other keys, and perhaps another address to listen on."""
        others = {self.instance.credential_path: keys}
        if address:
            others[str(self.instance.endpoint.address)] = address
        return [others.get(word, word) for word in self.instance.argv]
