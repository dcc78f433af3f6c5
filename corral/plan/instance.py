"""One running server as planned: its unit, command line, endpoint, and how it is switched to."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import EngineKind
from corral.plan.gate import GatePlan
from corral.plan.placement import InstanceNeed, ResolvedPlacement
from corral.schema import Frozen

# Fields of InstancePlan that hold whole files: only `stage` needs them.
INSTANCE_FILES = frozenset({"unit_text", "chat_template", "reference_text"})


class Endpoint(Frozen):
    """Where an instance listens: an address and port, or a socket file."""

    address: str | None = None
    port: int | None = None
    socket: str | None = None

    @property
    def url(self) -> str:
        """How a person writes it."""
        if self.socket:
            return f"unix:{self.socket}"
        shown = f"[{self.address}]" if ":" in str(self.address) else self.address
        return f"http://{shown}:{self.port}"


class SparePlan(Frozen):
    """The same server on a spare port, for a switch side by side."""

    unit: str
    unit_path: str
    unit_text: str
    argv: tuple[str, ...]
    endpoint: Endpoint


class ActivationPlan(Frozen):
    """How an instance changes to this generation.

    + how: auto decides on the host, from what fits; + spare: None for a unix socket
    + confirm_seconds: for the controller to confirm a gated generation, else it is reverted
    """

    how: Literal["auto", "in-place", "side-by-side"] = "auto"
    spare: SparePlan | None = None
    drain_seconds: int = 60
    confirm_seconds: int = 120


class InstancePlan(Frozen):
    """One running server, ready to stage, activate and verify.

    + environment: variables that its unit sets, as they stand there (``%C`` is /var/cache)
    + file_sha256: of each file that Corral writes for its start, by path; not of its keys
    """

    name: str
    unit: str
    unit_path: str
    unit_text: str
    file_sha256: dict[str, str] = {}
    generation: str
    folder: str
    key_path: str
    kind: EngineKind
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    endpoint: Endpoint
    alias: str
    profile: str
    model: str
    quant: str
    release: str
    shards: tuple[str, ...]
    context_tokens_per_slot: int
    slots: int
    gpus: tuple[int | str, ...]
    placement: ResolvedPlacement
    need: InstanceNeed
    fit_argv: tuple[str, ...] | None
    chat_template: str | None
    chat_template_path: str | None
    metrics: bool
    keyed_routes: tuple[str, ...]
    uses_gpu: bool
    ready_timeout_seconds: int
    gate: GatePlan = GatePlan()
    reference_text: str | None = None
    activation: ActivationPlan = ActivationPlan()
