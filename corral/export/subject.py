"""The subject of an export: an instance, its release, and settings of its unit."""

from __future__ import annotations

import ipaddress

from corral.catalog.entries import EngineKind
from corral.engines import engine_module
from corral.engines.base import UnitNeeds
from corral.errors import CorralError
from corral.paths import credential_path
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

    def refuse_image(self, form: str) -> None:
        """Raises CorralError for a server that runs in an image, which ``form`` cannot start."""
        if self.instance.runtime.image:
            what = f'it has "runtime": "apptainer", which {form} cannot start'
            step = f"`corral export {self.name} --as script`"
            raise CorralError(self.name, what, step)

    @property
    def locks_memory(self) -> bool:
        """Whether the unit may lock the weights in memory."""
        return self.instance.locks_memory

    @property
    def needs(self) -> UnitNeeds:
        """What its engine needs of a unit, or of a container."""
        return engine_module(self.kind).unit_needs

    @property
    def answers_without_key(self) -> str:
        """A route that needs no key, so that no network may reach it; "" if there is none."""
        return next(iter(self.instance.keyless_routes), "")

    @property
    def address(self) -> str | None:
        """Where it listens beside no unit: on loopback, where a key does not guard all routes."""
        planned = self.instance.endpoint.address
        if planned is None or not self.answers_without_key:
            return planned
        address = ipaddress.ip_address(planned)
        return planned if address.is_loopback else {4: "127.0.0.1", 6: "::1"}[address.version]

    def argv(self, *, keys: str, address: str | None = None) -> list[str]:
        """The command line, with another file of keys, and perhaps another address."""
        others = {self.instance.credential_path: keys}
        if listens := address or self.address:
            others[str(self.instance.endpoint.address)] = listens
        return [others.get(word, word) for word in self.instance.argv]

    def prepare(self, *, keys: str, config: str) -> list[str]:
        """The command that makes the server's own file of keys from the key file; or none."""
        others = {
            credential_path(self.instance.unit): keys,
            self.instance.credential_path: config,
        }
        return [others.get(word, word) for word in self.instance.prepare]
