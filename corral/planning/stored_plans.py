"""Plans without planning: by instance names alone, or as stored on their host.

Commands on running instances (status, logs, stop, revert) must not depend on the inputs of
planning: a correct catalog, lock and inventory, and a hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS
from corral.plan.host import HostPlan
from corral.plan.instance import INSTANCE_FILES, Endpoint, InstancePlan
from corral.plan.placement import InstanceNeed, ResolvedPlacement
from corral.planning.host_paths import host_paths
from corral.planning.limits import limited

# Never taken from a stored document, as commands act on them.
_BY_NAME = {"name", "unit"}
# Where a stored plan does not have it.
_READY_SECONDS = 600


def named_plan(host: Host, names: Iterable[str]) -> HostPlan:
    """A plan with the names of instances alone: enough for units, folders and histories."""
    return stored_plan(host, {name: {} for name in names})


def stored_plan(host: Host, kept: Mapping[str, Mapping[str, Any]]) -> HostPlan:
    """A plan of instances as stored on their host.

    + kept: name -> document of the installed plan, of any version. A key that is missing or of
      another shape gets its default.
    """
    return HostPlan(
        host=host.name,
        platform=host.spec.platform,
        paths=host_paths(host),
        packages=(),
        commands=(),
        gpus=None,
        releases=(),
        shards=(),
        instances=tuple(_instance(name, document) for name, document in kept.items()),
    )


def _instance(name: str, document: Mapping[str, Any]) -> InstancePlan:
    nothing = _nothing(name)
    values = dict(nothing)
    for key in InstancePlan.model_fields.keys() & document.keys() - INSTANCE_FILES - _BY_NAME:
        try:
            InstancePlan.model_validate({**nothing, key: document[key]})
        except ValidationError:
            continue
        values[key] = document[key]
    found = InstancePlan.model_validate(values)
    if found.activation.limit_seconds:
        return found
    # Stored by a version without limits in plans.
    limits = limited(
        found.activation,
        ready_seconds=found.ready_timeout_seconds,
        stop_seconds=found.stop_seconds,
        gate=found.gate,
    )
    return found.model_copy(update={"activation": limits})


def _nothing(name: str) -> dict[str, Any]:
    unit = f"corral-{name}.service"
    return {
        "name": name, "unit": unit, "unit_path": f"{HOST_PATHS.units}/{unit}", "unit_text": "",
        "generation": "", "folder": f"{HOST_PATHS.instances}/{name}",
        "key_path": f"{HOST_PATHS.keys}/{name}", "kind": "", "argv": (), "endpoint": Endpoint(),
        "alias": "", "profile": "", "model": "", "quant": "", "release": "", "shards": (),
        "context_tokens_per_slot": 0, "slots": 0, "gpus": (), "placement":
        ResolvedPlacement(gpu_layers=0), "need": InstanceNeed(), "fit_argv": None,
        "chat_template": None, "chat_template_path": None, "metrics": False, "keyed_routes": (),
        "uses_gpu": False, "ready_timeout_seconds": _READY_SECONDS,
    }  # fmt: skip
