"""The watchdog of a profile: a completion now and then, and a restart where none comes."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class Watchdog(Frozen):
    """A server that hangs is restarted by its host; without this table nothing is asked of it.

    A server that worked since the last look is not asked, so that nothing is taken from requests.
    """

    every_seconds: int = Field(default=60, ge=5, description="pause between two looks")
    answer_seconds: int = Field(
        default=120,
        ge=1,
        description="longest wait for one token; with ik_llama.cpp, whose metrics stand still "
        "during a prompt, longer than its longest prompt takes",
    )
    failures: int = Field(default=3, ge=1, description="looks without an answer, before a restart")
    restarts: int = Field(
        default=3, ge=1, description="restarts within an hour, before the server is stopped"
    )
