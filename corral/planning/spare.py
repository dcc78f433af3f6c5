"""The same server once more on a spare port, for a switch side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corral.plan.instance import SparePlan
from corral.planning.unit import UnitValues, render_unit

_SUFFIX = "-spare"


def spare_unit(instance: str) -> str:
    """The name of its systemd unit."""
    return f"corral-{instance}{_SUFFIX}.service"


def plan_spare(
    values: UnitValues,
    *,
    port: int | None,
    says: Mapping[str, str],
    generation: str,
    units: str,
    templates: Path,
) -> SparePlan | None:
    """What changes in a second server: its unit, its port, where its keys reach it.

    + port: the spare one; None for an instance that listens on a unix socket, which has no spare
    + says: the engine's flags for port and keys; + units: the folder of unit files
    """
    if port is None or values.endpoint.port is None:
        return None
    unit = spare_unit(values.instance)
    own = {says["port"]: str(port), says["keys"]: f"/run/credentials/{unit}/api-keys"}
    argv = list(values.argv)
    for flag, value in own.items():
        argv[argv.index(flag) + 1] = value
    spare = values.model_copy(
        update={
            "instance": f"{values.instance}{_SUFFIX}",
            "argv": tuple(argv),
            "endpoint": values.endpoint.model_copy(update={"port": port}),
        }
    )
    return SparePlan(
        unit=unit,
        unit_path=f"{units}/{unit}",
        unit_text=render_unit(spare, generation=generation, templates=templates),
        argv=spare.argv,
        endpoint=spare.endpoint,
    )
