"""Remove weights that no plan, process, or generation that may be started again needs."""

from pathlib import Path

from corral_host.observe.weights import freed_bytes, unneeded
from corral_host.swarm.pieces import forget_others
from corral_host.system.commands import HostError, show
from corral_host.system.locks import activate_lock, held, refuse_other_rollout
from corral_host.weights.adopt import by_digest
from corral_host.weights.kept import discard
from corral_host.weights.models_root import root_fault

FETCH = "corral-job-fetch.service"


def prune_weights(plan):
    """``plan``: a HostPlan, with ``rollout`` if one asks. Returns the removed files and bytes."""
    paths = plan["paths"]
    fault = root_fault(paths)
    if fault:
        raise HostError(f"{fault[0]}. Nothing was removed", fault[1])
    if plan.get("shards") is None:
        raise HostError("it is unknown what is planned here", "send the whole plan")
    refuse_other_rollout(paths["state"], plan.get("rollout"))
    with held(activate_lock(paths["state"]), "corral", "removing weights that nobody needs"):
        if show(FETCH, "ActiveState")["ActiveState"] not in ("inactive", "failed"):
            raise HostError(
                "weights are being fetched here; nothing was removed",
                f"wait for it (journalctl -fu {FETCH}), then the same command again",
            )
        doomed = unneeded(plan)
        freed = freed_bytes(doomed)
        for row in doomed:
            discard(Path(row["path"]), Path(row["root"]))
        forget_others(paths, by_digest(paths))
    return {"removed": [row["path"] for row in doomed], "freed_bytes": freed}
