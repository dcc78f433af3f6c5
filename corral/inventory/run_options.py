"""What is asked of one run of a deploy: ``--data NAME=VALUE``, or a key of host data."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class RunOptions(Frozen):
    """Of one host in one run; no part of what the host is.

    + rollout: the id of the rollout that holds the hosts and stages on them, if one does
    """

    stage_only: bool = Field(
        default=False, description="put everything on the host, touch no service"
    )
    without_failed: bool = Field(
        default=False, description="go on with the next wave where a host failed"
    )
    allow_reboot: bool = Field(
        default=False, description="reboot the host where its driver needs it"
    )
    rollout: str | None = Field(
        default=None, description="id of the rollout that this run stages for"
    )
