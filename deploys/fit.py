"""Stage: proof that what is not served yet will fit, before its weights are fetched."""

from __future__ import annotations

from deploys.target import Target
from operations import fit as fit_operations
from operations import trial


def fit(target: Target) -> None:
    """Prove the fit of the instances that wait."""
    waiting = target.waiting_instances()
    fit_operations.proof(plan=target.plan, waiting=waiting, name="Fit proof")
    if any(instance.trial for instance in target.plan.instances):
        trial.runs(
            plan=target.plan, waiting=waiting, operator=target.operator,
            name="Trial with dummy weights",
        )  # fmt: skip
