"""What every stage works from: the plan of a host, its state before any change, its keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from corral.errors import CorralError
from corral.helper import BOOTSTRAP, archive, encoded
from corral.inventory import parse_host
from corral.keys import KeyFile, ensure_keys
from corral.plan import HostPlan, InstancePlan
from corral.planning import Planner
from corral.project import helper_package, load_planner, project_root
from corral.state import HostState
from facts.host import State


@dataclass(frozen=True)
class Target:
    """One host: desired, observed, and the secrets that only operations may touch."""

    plan: HostPlan
    state: HostState
    keys: dict[str, KeyFile]
    helper: bytes

    def missing_instances(self) -> list[InstancePlan]:
        """Instances whose planned generation is not on the host."""
        found = self.state.instances
        return [i for i in self.plan.instances if i.name not in found or not found[i.name].staged]

    def changed_keys(self) -> list[InstancePlan]:
        """Instances whose key file differs from the store's."""
        return [i for i in self.plan.instances if self._key_on_host(i) != self.keys[i.name].sha256]

    def waiting_instances(self) -> list[InstancePlan]:
        """Instances that do not serve their planned generation with their current keys."""
        return [i for i in self.plan.instances if not self._serves(i)]

    def _key_on_host(self, instance: InstancePlan) -> str | None:
        found = self.state.instances.get(instance.name)
        return found.key_sha256 if found else None

    def _serves(self, instance: InstancePlan) -> bool:
        found = self.state.instances.get(instance.name)
        sha256 = self.keys[instance.name].sha256
        # A release that is built again in this run replaces the program under its servers.
        built = self.state.releases.get(instance.release, False)
        return built and found is not None and found.serves and found.key_sha256 == sha256


def current_target() -> Target:
    """Plan the host that pyinfra prepares, and look at it once. A mistake stops the whole run."""
    try:
        data = host.data.dict()  # type: ignore[no-untyped-call]
        this = parse_host(host.name, data, origin=_origin())
        plan = _planner().plan_host(this)
        keys = {i.name: ensure_keys(this, i.name) for i in plan.instances}
    except CorralError as error:
        raise PyinfraError(str(error)) from error
    package = helper_package(project_root())
    state = host.get_fact(
        State, plan_json=plan.to_helper(), bootstrap=BOOTSTRAP, _stdin=encoded(package)
    )
    return Target(plan=plan, state=state or HostState(), keys=keys, helper=archive(package))


def _origin() -> str:
    """The inventory's file; pyinfra tells it only by the group that it names after the file."""
    files = [f"inventories/{group}.py" for group in host.groups]
    return next((file for file in files if (project_root() / file).is_file()), "the inventory")


@cache
def _planner() -> Planner:
    return load_planner(project_root())
