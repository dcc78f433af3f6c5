"""One server as planned: its unit, command line, endpoint and activation."""

from __future__ import annotations

from typing import Literal

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.catalog.watchdog import Watchdog
from corral.plan.gate import GatePlan
from corral.plan.placement import InstanceNeed, ResolvedPlacement
from corral.plan.runtime import NATIVE, RuntimePlan
from corral.schema import Frozen

# Fields of InstancePlan that hold the text of files: only `stage` needs them.
INSTANCE_FILES = frozenset({"unit_text", "chat_template", "reference_text"})


class Endpoint(Frozen):
    """Where an instance listens: address and port, or a socket file."""

    address: str | None = None
    port: int | None = None
    socket: str | None = None

    @property
    def url(self) -> str:
        """The endpoint for display."""
        if self.socket:
            return f"unix:{self.socket}"
        shown = f"[{self.address}]" if ":" in str(self.address) else self.address
        return f"http://{shown}:{self.port}"


class SparePlan(Frozen):
    """The same server on a spare port, for an activation side by side."""

    unit: str
    unit_path: str
    unit_text: str
    argv: tuple[str, ...]
    endpoint: Endpoint


class ActivationPlan(Frozen):
    """How a generation is activated.

    + how: auto: the host decides by free memory; + spare: None for a unix socket
    + confirm_seconds: time for the controller to confirm a gated generation, else it is reverted
    + limit_seconds, side_by_side_limit_seconds: more than a whole activation with its revert can
      take; after that the host settles it. 0 in plans of versions without these fields
    """

    how: Literal["auto", "in-place", "side-by-side"] = "auto"
    spare: SparePlan | None = None
    drain_seconds: int = 60
    confirm_seconds: int = 120
    limit_seconds: int = 0
    side_by_side_limit_seconds: int = 0

    @property
    def longest_seconds(self) -> int:
        """The limit of the slower way, whichever the host chooses."""
        return max(self.limit_seconds, self.side_by_side_limit_seconds)


class TrialPlan(Frozen):
    """A start of the server with dummy weights, before its weights are fetched.

    + unit: transient, of this run alone; + socket: where it listens; + argv: with credentials of
    the unit for keys and chat template
    """

    unit: str
    socket: str
    argv: tuple[str, ...]


class InstancePlan(Frozen):
    """One server, with all that stage, activate and verify need.

    + argv: the server's own command line, which ``runtime.command`` precedes in its unit
    + environment: variables of its unit, as the unit writes them (``%C`` is /var/cache)
    + file_sha256: path -> digest of each file that Corral writes for its start, keys excepted
    + credential_path: where the server's process reads its keys, as its arguments state
    + prepare: command that makes the file at ``credential_path`` before each start, or none
    + clients: addresses that its unit lets in, as IPAddressAllow= takes them; None for all
    + keyed_routes, keyless_routes: ``METHOD path`` that must refuse a request without a key, and
      that answer one, so that no client may reach them
    + shards: all files of the model, weights first; + model_path: the path that the server loads
    + release_folder: folder of its engine release; + engine: name of that engine
    + weights_mapped: weights are mapped from their files, so the kernel may evict them
    + locks_memory: the unit may lock memory
    + gpu_budgets_mib: what placement = "auto" could use of each GPU, beside its neighbours
    + drafts_tokens: it drafts tokens, with a KV cache and compute buffers of their own
    + projector: path of the file that turns images into tokens; "" for a server without images
    + settings: its profile when it was planned, so that it can be measured later
    + stop_seconds: time to stop, after which the server is killed
    + watchdog: completions that its host asks for between deploys; None: none
    + trial: None for an engine that does not start without weights

    Stored plans of versions before one of these fields have its default.
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
    runtime: RuntimePlan = NATIVE
    argv: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    endpoint: Endpoint
    clients: tuple[str, ...] | None = None
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
    gpu_budgets_mib: tuple[int, ...] = ()
    fit_argv: tuple[str, ...] | None
    chat_template: str | None
    chat_template_path: str | None
    metrics: bool
    keyed_routes: tuple[str, ...]
    keyless_routes: tuple[str, ...] = ()
    uses_gpu: bool
    weights_mapped: bool = True
    locks_memory: bool = False
    drafts_tokens: bool = False
    projector: str = ""
    ready_timeout_seconds: int
    stop_seconds: int = 60
    gate: GatePlan = GatePlan()
    reference_text: str | None = None
    activation: ActivationPlan = ActivationPlan()
    watchdog: Watchdog | None = None
    trial: TrialPlan | None = None
