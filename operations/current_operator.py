"""The current operator of a host: while a rollout holds its lock, only that rollout may stage."""

from __future__ import annotations

from typing import Any

from corral.schema import Frozen


class CurrentOperator(Frozen):
    """The folder with a host's locks, and the id of the rollout that stages, if any."""

    state: str
    rollout: str | None


def operator_document(operator: CurrentOperator | None) -> dict[str, Any]:
    """The operator's part of a document for the helper; hosts know the key as ``asker``."""
    return {"asker": operator.model_dump()} if operator else {}
