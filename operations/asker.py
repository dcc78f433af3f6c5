"""Who puts something on a host: while a rollout holds it, nobody else may."""

from __future__ import annotations

from typing import Any

from corral.schema import Frozen


class Asker(Frozen):
    """The folder with a host's locks, and the rollout that stages, if one does."""

    state: str
    rollout: str | None


def named(asker: Asker | None) -> dict[str, Any]:
    """As documents for the helper have it."""
    return {"asker": asker.model_dump()} if asker else {}
