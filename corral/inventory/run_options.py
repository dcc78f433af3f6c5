"""Options of one run of a deploy: ``--data NAME=VALUE``, or keys of host data."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class RunOptions(Frozen):
    """Options of one host in one run; they do not describe the host.

    + rollout: id of the rollout that holds the hosts' locks and stages on them, if any
    """

    stage_only: bool = Field(
        default=False, description="put everything on the host, touch no service"
    )
    without_failed: bool = Field(
        default=False, description="continue with the next wave without hosts that failed"
    )
    allow_reboot: bool = Field(
        default=False, description="reboot the host where its driver needs it"
    )
    remove_orphans: bool = Field(
        default=False, description="remove instances that are on the host and not in the inventory"
    )
    rollout: str | None = Field(
        default=None, description="id of the rollout that this run stages for"
    )
