"""Plans without planning: of instances by their names, or as their host keeps them.

Commands that only reach what runs (status, logs, stop, revert) must not depend on all that a plan
is made from: a catalog, a lock and an inventory without a single mistake, and a hub.
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
from corral.planning.limits import limited

# Never believed, as commands act on them.
_BY_NAME = {"name", "unit"}
# Where a plan of another version, or none, does not say.
_READY_SECONDS = 600


def named_plan(host: Host, names: Iterable[str]) -> HostPlan:
    """A plan that knows its instances by name alone: enough for units, folders and histories."""
    return kept_plan(host, {name: {} for name in names})


def kept_plan(host: Host, kept: Mapping[str, Mapping[str, Any]]) -> HostPlan:
    """A plan of instances as a host keeps them.

    + kept: name -> the document of the plan that is installed, of whatever version
    What a document does not have, or has in another shape, is what an instance without it has.
    """
    return HostPlan(
        host=host.name,
        platform=host.spec.platform,
        paths=HOST_PATHS,
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
    # Kept by a version that decided it twice, on the host and here.
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
