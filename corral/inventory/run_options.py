"""What is asked of one run of a deploy: ``--data NAME=VALUE``, or a key of host data."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class RunOptions(Frozen):
    """Of one host in one run; no part of what the host is.

    + rollout: the id of the rollout that holds the hosts and stages on them, if one does
    """

    stage_only: bool = Field(default=False, description="touch no service; by --data")
    without_failed: bool = Field(default=False, description="go on without hosts; by --data")
    allow_reboot: bool = Field(default=False, description="where a driver needs it; by --data")
    rollout: str | None = Field(default=None, description="that stages; by --data")
