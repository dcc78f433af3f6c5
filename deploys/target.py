"""What every stage works from: the plan of a host, its state before any change, its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corral_shared.text import printable
from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from corral.drift import waiting
from corral.errors import CorralError
from corral.gateway.change import refuse_lost_keys
from corral.gateway.files import GatewayFiles, gateway_files
from corral.host.state import HostState
from corral.inventory.hosts import Host
from corral.offline.deploy import AptFiles, HostBundle, bundle_of, take_archives
from corral.paths import unit_name
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.key_digest import state_question
from corral.plan.release import ReleasePlan
from corral.plan.weights import ShardPlan
from corral.project import helper_package, project_root, templates
from corral.remote.helper_archive import BOOTSTRAP, archive, encoded
from corral.remote.root import as_root
from corral.store.api_keys import KeyFile
from corral.store.engine_archives import ArchiveStore, archives_folder
from corral.store.scrape_secrets import secret_texts
from deploys import waves
from deploys.fleet import tell
from deploys.keys import keys
from deploys.run import fleet
from facts.host import State
from operations.current_operator import CurrentOperator


@dataclass(frozen=True)
class Target:
    """One host: desired, observed, and the secrets that only operations may touch.

    + keys: none of a host that does not tell what it has, which preflight stops
    + monitoring_secrets: path on the host -> secret of its Prometheus or Alertmanager
    """

    host: Host
    plan: HostPlan
    state: HostState
    keys: dict[str, KeyFile]
    helper: bytes
    store: ArchiveStore
    gateway: GatewayFiles | None = None
    monitoring_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    bundle: HostBundle | None = None

    @property
    def apt_files(self) -> AptFiles | None:
        """What makes apt use the host's bundle alone; None for a host without one."""
        return self.bundle.apt(self.plan.platform) if self.bundle else None

    @property
    def is_root(self) -> bool:
        """Whether anything can be asked of the host, or changed there."""
        return not self.state.not_root

    def missing_shards(self) -> list[ShardPlan]:
        """Files of weights that the host has not proved."""
        found = self.state.shards
        return [s for s in self.plan.shards if s.path not in found or not found[s.path].proved]

    def missing_releases(self) -> list[ReleasePlan]:
        """Releases of its instances that are not installed, or not whole."""
        return [r for r in self.plan.releases if not self._has(r)]

    def missing_builds(self) -> list[ReleasePlan]:
        """Releases that could be built here: neither installed nor in the store."""
        known = {release.key: release for release in (*self.plan.builds, *self.plan.releases)}
        return [r for r in known.values() if not self._has(r) and not self._is_stored(r)]

    def unpacked_releases(self) -> list[ReleasePlan]:
        """Installed releases whose archive the store lacks."""
        shared = [release for release in self.plan.releases if not release.native]
        return [r for r in shared if self._has(r) and not self._is_stored(r)]

    def _has(self, release: ReleasePlan) -> bool:
        return self.state.releases.get(release.key, False)

    def _is_stored(self, release: ReleasePlan) -> bool:
        return not release.native and bool(self.store.find(release.engine, release.key))

    def missing_instances(self) -> list[InstancePlan]:
        """Instances whose planned generation is not on the host."""
        found = self.state.instances
        return [i for i in self.plan.instances if i.name not in found or not found[i.name].staged]

    def changed_keys(self) -> list[InstancePlan]:
        """Instances whose key file differs from the store's."""
        known = [i for i in self.plan.instances if i.name in self.keys]
        return [i for i in known if self._key_on_host(i) != self.keys[i.name].digest]

    def seen_keys(self) -> dict[str, str | None]:
        """Digest of each key file that was on the host, if it was private."""
        return {i.name: self._key_on_host(i) for i in self.plan.instances}

    @property
    def operator(self) -> CurrentOperator:
        """Who puts things there."""
        return CurrentOperator(state=self.plan.paths.state, rollout=self.host.options.rollout)

    def waiting_instances(self) -> list[InstancePlan]:
        """Instances that do not serve their planned generation with their current keys."""
        digests = {name: key.digest for name, key in self.keys.items()}
        return list(waiting(self.plan, self.state, digests))

    def orphans(self, *, in_the_way: bool) -> list[str]:
        """Instances on the host that its plan does not have.

        + in_the_way: those that hold a port of the plan, else the others
        """
        ports = {i.endpoint.port for i in self.plan.instances}
        holders = {found.unit for port, found in self.state.listeners.items() if port in ports}
        return [n for n in self.state.unplanned if (unit_name(n) in holders) is in_the_way]

    @property
    def prunes_weights(self) -> bool:
        """Whether weights that nobody needs go with this deploy."""
        return self.host.spec.keep_weights == "referenced"

    def waiting_gateway(self) -> GatewayFiles | None:
        """The gateway's files, unless they are what is installed and runs."""
        found = self.state.gateway
        if self.gateway is None or (
            found and found.installed == found.running == self.gateway.generation
        ):
            return None
        return self.gateway

    def _key_on_host(self, instance: InstancePlan) -> str | None:
        found = self.state.instances.get(instance.name)
        return found.key_digest if found else None


# The login itself, whatever host data says: State becomes root by itself.
_AS_LOGIN: dict[str, Any] = {"_sudo": False, "_doas": False, "_dzdo": False, "_su_user": ""}


def current_target() -> Target:
    """Plan the host that pyinfra prepares, and look at it once. A mistake stops the whole run."""
    try:
        plan = fleet().plan(host.name)
        this = fleet().host(host.name)
        state = _observed(this, plan)
        store, bundle = ArchiveStore(archives_folder(this)), bundle_of(this)
        if bundle:
            take_archives(bundle, plan, store)
        target = Target(
            host=this,
            plan=plan,
            state=state,
            keys=keys(this, plan, state),
            helper=archive(helper_package(project_root())),
            store=store,
            bundle=bundle,
            gateway=_gateway_files(this, plan, state),
            monitoring_secrets=_monitoring_secrets(plan, state),
        )
    except CorralError as error:
        raise PyinfraError(printable(error)) from error
    tell(host.name, plan.releases, missing=target.missing_releases())
    waves.note(this, waiting=bool(target.waiting_instances()))
    return target


def _observed(this: Host, plan: HostPlan) -> HostState:
    found = host.get_fact(
        State, bootstrap=BOOTSTRAP, become=tuple(as_root(this.data, ())),
        _stdin=[encoded(helper_package(project_root())), state_question(plan)], **_AS_LOGIN,
    )  # fmt: skip
    return found or HostState()


def _monitoring_secrets(plan: HostPlan, state: HostState) -> dict[str, str]:
    return secret_texts(plan.monitoring, fleet().everyone) if state.readable else {}


def _gateway_files(this: Host, plan: HostPlan, state: HostState) -> GatewayFiles | None:
    if plan.gateway is None or not state.readable:
        return None
    if state.gateway:
        refuse_lost_keys(this, plan.gateway, state.gateway.upstream)
    folder = templates(project_root())
    return gateway_files(this, plan.gateway, paths=plan.paths, templates=folder)
