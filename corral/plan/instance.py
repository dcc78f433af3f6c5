"""One running server as planned: its unit, command line, endpoint, and how it is switched to."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
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
    + limit_seconds, side_by_side_limit_seconds: longer than all of it may take, its revert
      included; then the host settles it. 0 in plans of versions that did not say
    """

    how: Literal["auto", "in-place", "side-by-side"] = "auto"
    spare: SparePlan | None = None
    drain_seconds: int = 60
    confirm_seconds: int = 120
    limit_seconds: int = 0
    side_by_side_limit_seconds: int = 0

    @property
    def longest_seconds(self) -> int:
        """The longest that it may take, whichever way the host decides."""
        return max(self.limit_seconds, self.side_by_side_limit_seconds)


class InstancePlan(Frozen):
    """One running server, ready to stage, activate and verify.

    + environment: variables that its unit sets, as they stand there (``%C`` is /var/cache)
    + file_sha256: of each file that Corral writes for its start, by path; not of its keys
    + credential_path: where the server's process reads its keys, as its arguments say
    + shards: all files of the model, weights first; + model_path: what the server is given to load
    + release_folder: of the engine release that it runs; + engine: that engine's name
    + weights_mapped: weights are mapped from their files, and may leave memory again
    + locks_memory: the unit may lock them there
    + drafts_tokens: what drafts tokens has KV cache and compute buffers of its own
    + settings: what its profile said, so that it can be measured whatever that says by now
    + stop_seconds: after them a server that is to stop is killed

    Of these, plans of versions before they were part of a plan have none: "" or the default.
    """

    name: str
    unit: str
    unit_path: str
    unit_text: str
    file_sha256: dict[str, str] = {}
    generation: str
    folder: str
    key_path: str
    credential_path: str = ""
    kind: EngineKind
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    endpoint: Endpoint
    alias: str
    profile: str
    settings: Profile | None = None
    model: str
    quant: str
    engine: str = ""
    release: str
    release_folder: str = ""
    shards: tuple[str, ...]
    model_path: str = ""
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
    weights_mapped: bool = True
    locks_memory: bool = False
    drafts_tokens: bool = False
    ready_timeout_seconds: int
    stop_seconds: int = 60
    gate: GatePlan = GatePlan()
    reference_text: str | None = None
    activation: ActivationPlan = ActivationPlan()
