"""The plan of one instance, from its resolved spec, release and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import SkipValidation

from corral.catalog.entries import FileKind
from corral.engines import engine_module, kinds
from corral.engines.base import KeyConfig
from corral.engines.flag_table import Settings
from corral.errors import CorralError
from corral.fit.host import Placed
from corral.inventory.hosts import InstanceSpec
from corral.paths import HostPaths, credential_path, unit_name
from corral.plan.instance import ActivationPlan, Endpoint, InstancePlan, SparePlan, TrialPlan
from corral.plan.placement import ResolvedPlacement
from corral.plan.release import ReleasePlan
from corral.plan.runtime import RuntimePlan
from corral.plan.weights import ShardPlan
from corral.planning.clients import InFront, clients, nobody
from corral.planning.gate import plan_gate
from corral.planning.limits import limited
from corral.planning.resolved import ResolvedInstance
from corral.planning.unit import UnitValues, memory_policy, render_unit
from corral.runtimes import Start, runtime_of, unpacks
from corral.schema import Frozen

GIB = 1024**3
# Credentials of a trial's unit (files/corral_host/fit/trial.py).
TRIAL_KEYS, TRIAL_TEMPLATE = "keys.yaml", "chat-template.jinja"
# Suffix of the spare server's name, in its unit and folders.
_SPARE = "-spare"


class _Files(NamedTuple):
    """Paths that a server loads: of the model, a projector and a draft model or "", adapters."""

    model: str
    projector: str
    draft: str
    lora: tuple[str, ...]


class InstancePlanner(Frozen):
    """Planner of instances: paths on hosts, the folder of the unit's template, and gateways."""

    paths: HostPaths
    templates: Path
    in_front: SkipValidation[InFront] = nobody

    def plan(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        shards: tuple[ShardPlan, ...],
        placed: Placed,
    ) -> InstancePlan:
        """The plan of an instance. Raises CorralError for an impossible endpoint or gate."""
        profile, placement = resolved.profile, placed.placement
        files = _files(resolved, shards)
        model = files.model
        generation = self._generation(resolved, release, shards, placement)
        values = self._unit_values(resolved, release, files, placement, generation)
        unit_path = self.paths.unit_file(resolved.spec.name)
        runtime = self._runtime(resolved, release, values, generation)
        unit_text = self._render(values, generation, runtime)
        ready = _ready_seconds(resolved, shards)
        gate = plan_gate(
            resolved,
            release,
            model=model,
            placement=placement,
            generation_folder=self._generation_folder(resolved, generation),
        )
        spare = self._spare(resolved, release, files, placement, generation)
        return InstancePlan(
            name=resolved.spec.name,
            unit=unit_name(resolved.spec.name),
            unit_path=unit_path,
            unit_text=unit_text,
            file_sha256=self._digests(resolved, generation, unit_path, unit_text),
            generation=generation,
            folder=self._folder(resolved),
            key_path=values.key_path,
            credential_path=self._credential_path(resolved, release),
            kind=resolved.kind,
            runtime=runtime,
            argv=values.argv,
            prepare=values.prepare,
            environment=values.environment,
            endpoint=values.endpoint,
            clients=values.clients,
            alias=resolved.alias,
            profile=resolved.spec.profile,
            settings=profile,
            model=resolved.model,
            quant=resolved.quant,
            engine=release.engine,
            release=release.key,
            release_folder=release.folder,
            shards=tuple(shard.path for shard in shards),
            model_path=model,
            context_tokens_per_slot=profile.context_tokens_per_slot,
            slots=profile.slots,
            gpus=resolved.gpus,
            placement=placement,
            need=placed.need,
            gpu_budgets_mib=placed.budgets_mib,
            fit_argv=engine_module(resolved.kind).fit_argv(
                profile,
                programs=f"{release.folder}/bin",
                model=model,
                placement=placement,
            ),
            chat_template=resolved.chat_template,
            chat_template_path=self._template_path(resolved, generation),
            metrics=profile.metrics,
            keyed_routes=engine_module(resolved.kind).keyed_routes(profile),
            keyless_routes=_keyless_routes(resolved),
            uses_gpu=resolved.wants_gpu,
            weights_mapped=profile.load_mode == "mmap" and _maps_weights(resolved),
            locks_memory=values.locks_memory,
            drafts_tokens=bool(profile.mtp_draft_tokens or profile.draft_model),
            projector=files.projector,
            ready_timeout_seconds=ready,
            stop_seconds=engine_module(resolved.kind).unit_needs.stop_seconds,
            activation=limited(
                _activation(resolved.spec, spare),
                ready_seconds=ready,
                stop_seconds=_longest_stop_seconds(),
                gate=gate,
            ),
            gate=gate,
            reference_text=resolved.reference,
            watchdog=profile.watchdog,
            trial=self._trial(resolved, release, model, placement),
        )

    def argv_at(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        shards: tuple[ShardPlan, ...],
        placement: ResolvedPlacement,
        *,
        endpoint: Endpoint,
        key_file: str,
    ) -> tuple[str, ...]:
        """The server's command line at another endpoint, natively, without a chat template.

        For completions, which need no template: its file is there only once it is staged.
        """
        files, module = _files(resolved, shards), engine_module(resolved.kind)
        settings = Settings(
            profile=resolved.profile,
            model=files.model,
            alias=resolved.alias,
            endpoint=endpoint,
            key_file=key_file,
            placement=placement,
            projector=files.projector,
            draft=files.draft,
            lora=files.lora,
            gpus=len(resolved.gpus),
        )
        return module.argv(release.program(module.program), settings)

    def _digests(
        self, resolved: ResolvedInstance, generation: str, unit_path: str, unit_text: str
    ) -> dict[str, str]:
        """Path -> digest of each file that Corral writes for the server's start."""
        texts = {
            unit_path: unit_text,
            f"{self._generation_folder(resolved, generation)}/unit": unit_text,
        }
        if resolved.chat_template is not None:
            texts[str(self._template_path(resolved, generation))] = resolved.chat_template
        return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}

    def _spare(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        files: _Files,
        placement: ResolvedPlacement,
        generation: str,
    ) -> SparePlan | None:
        """The same server on a spare port; None where it listens on a unix socket."""
        port = resolved.spec.planned_spare_port
        if port is None or self._endpoint(resolved).port is None:
            return None
        values = self._unit_values(resolved, release, files, placement, generation, spare_port=port)
        return SparePlan(
            unit=unit_name(values.instance),
            unit_path=self.paths.unit_file(values.instance),
            unit_text=self._render(
                values, generation, self._runtime(resolved, release, values, generation)
            ),
            argv=values.argv,
            endpoint=values.endpoint,
        )

    def _trial(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        model: str,
        placement: ResolvedPlacement,
    ) -> TrialPlan | None:
        """The same arguments with dummy weights; keys and chat template are of this run."""
        module = engine_module(resolved.kind)
        if not module.trial_arguments:
            return None
        # No job of another instance has this name, as theirs begin with "trial-".
        run = f"job-trial.{resolved.spec.name}"
        credentials = PurePosixPath(credential_path(unit_name(run))).parent
        socket = f"{self.paths.sockets}/corral-{run}/{module.socket_name}"
        argv = module.argv(
            _program(resolved, release),
            Settings(
                profile=resolved.profile,
                model=model,
                alias=resolved.alias,
                endpoint=Endpoint(socket=socket),
                key_file=str(credentials / TRIAL_KEYS),
                placement=placement,
                chat_template_file=(
                    str(credentials / TRIAL_TEMPLATE)
                    if resolved.chat_template is not None
                    else None
                ),
            ),
        )
        return TrialPlan(unit=unit_name(run), socket=socket, argv=(*argv, *module.trial_arguments))

    def _unit_values(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        files: _Files,
        placement: ResolvedPlacement,
        generation: str,
        *,
        spare_port: int | None = None,
    ) -> UnitValues:
        name, endpoint = resolved.spec.name, self._endpoint(resolved)
        if spare_port:
            name, endpoint = f"{name}{_SPARE}", Endpoint(address=endpoint.address, port=spare_port)
        module = engine_module(resolved.kind)
        config = self._key_config(resolved, release, name)
        runtime = runtime_of(resolved.runtime)
        argv = module.argv(
            release.program(module.program),
            Settings(
                profile=resolved.profile,
                model=runtime.weights(files.model, self.paths.models),
                alias=resolved.alias,
                endpoint=endpoint,
                key_file=config.path if config else credential_path(unit_name(name)),
                placement=placement,
                projector=runtime.weights(files.projector, self.paths.models),
                draft=runtime.weights(files.draft, self.paths.models),
                lora=tuple(runtime.weights(one, self.paths.models) for one in files.lora),
                gpus=len(resolved.gpus),
                chat_template_file=self._template_path(resolved, generation),
            ),
        )
        return UnitValues(
            host=resolved.host.name,
            instance=name,
            profile=resolved.spec.profile,
            argv=argv,
            prepare=config.command if config else (),
            key_path=self.paths.key_file(resolved.spec.name),
            endpoint=endpoint,
            gpus=resolved.gpus,
            host_gpus=resolved.host.spec.gpus.count if resolved.host.spec.gpus else 0,
            locks_memory="mlock" in resolved.profile.load_mode,
            clients=clients(resolved, endpoint, self.in_front),
            numa=resolved.profile.numa,
            memory_policy=memory_policy(resolved.profile),
            engine_environment=module.variables(resolved.profile),
            needs=module.unit_needs,
            models_folder=self.paths.models_folder,
            model=files.model,
            sandbox=runtime.sandbox(unpacks=_unpacks(resolved, release)),
        )

    def _runtime(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        values: UnitValues,
        generation: str,
    ) -> RuntimePlan:
        """How the unit of ``values`` starts its server."""
        unit, template = unit_name(values.instance), self._template_path(resolved, generation)
        has_folder = bool(values.endpoint.socket or values.prepare)
        folder = f"{self.paths.sockets}/corral-{values.instance}"
        start = Start(
            unit=unit,
            image=release.image_path,
            models=self.paths.models,
            program=resolved.host.spec.container_program,
            unpacks=_unpacks(resolved, release),
            gpus=bool(resolved.gpus),
            variables=values.environment,
            reads=tuple(filter(None, (str(PurePosixPath(credential_path(unit)).parent), template))),
            writes=(
                *((folder,) if has_folder else ()),
                *((f"/var/cache/corral-{values.instance}",) if values.caches else ()),
            ),
        )
        return runtime_of(resolved.runtime).plan(start)

    def _key_config(
        self, resolved: ResolvedInstance, release: ReleasePlan, name: str
    ) -> KeyConfig | None:
        """The engine's own file of keys of a unit called ``name``."""
        module = engine_module(resolved.kind)
        return module.key_config(
            program=release.program(module.program),
            key_file=credential_path(unit_name(name)),
            folder=f"{self.paths.sockets}/corral-{name}",
        )

    def _credential_path(self, resolved: ResolvedInstance, release: ReleasePlan) -> str:
        name = resolved.spec.name
        config = self._key_config(resolved, release, name)
        return config.path if config else credential_path(unit_name(name))

    def _generation(
        self,
        resolved: ResolvedInstance,
        release: ReleasePlan,
        shards: tuple[ShardPlan, ...],
        placement: ResolvedPlacement,
    ) -> str:
        """Sixteen hex digits over all that decides the running server: unit, weights, template."""
        files = _files(resolved, shards)
        values = self._unit_values(resolved, release, files, placement, "")
        unnamed = self._render(values, "", self._runtime(resolved, release, values, ""))
        return _digest([unnamed, [shard.sha256 for shard in shards], resolved.chat_template])[:16]

    def _folder(self, resolved: ResolvedInstance) -> str:
        return f"{self.paths.instances}/{resolved.spec.name}"

    def _template_path(self, resolved: ResolvedInstance, generation: str) -> str | None:
        if resolved.chat_template is None:
            return None
        return f"{self._generation_folder(resolved, generation)}/chat-template.jinja"

    def _generation_folder(self, resolved: ResolvedInstance, generation: str) -> str:
        return f"{self._folder(resolved)}/generations/{generation}"

    def _render(self, values: UnitValues, generation: str, runtime: RuntimePlan) -> str:
        return render_unit(values, generation=generation, templates=self.templates, runtime=runtime)

    def _endpoint(self, resolved: ResolvedInstance) -> Endpoint:
        spec, where = resolved.spec, resolved.where
        if resolved.profile.listen == "unix":
            if spec.port is not None:
                what = f"profile {spec.profile} listens on a unix socket, but port is {spec.port}"
                raise CorralError(where, what, "remove the port, or choose another profile")
            socket = engine_module(resolved.kind).socket_name
            return Endpoint(socket=f"{self.paths.sockets}/corral-{spec.name}/{socket}")
        if spec.port is None:
            raise CorralError(where, "a port is missing", 'add "port": ... to the instance')
        return Endpoint(address=spec.address, port=spec.port)


def _maps_weights(resolved: ResolvedInstance) -> bool:
    """Whether its engine can map weights; those in safetensors are read into memory."""
    return engine_module(resolved.kind).weights != "safetensors"


def _keyless_routes(resolved: ResolvedInstance) -> tuple[str, ...]:
    return tuple(" ".join(route) for route in engine_module(resolved.kind).routes.keyless)


def _program(resolved: ResolvedInstance, release: ReleasePlan) -> str:
    return f"{release.folder}/bin/{engine_module(resolved.kind).program}"


def _unpacks(resolved: ResolvedInstance, release: ReleasePlan) -> bool:
    spec = resolved.host.spec
    return unpacks(spec.container_program, release.image_path, asked=spec.unpack_images)


def _files(resolved: ResolvedInstance, shards: Sequence[ShardPlan]) -> _Files:
    def of(kind: FileKind) -> list[str]:
        return [shard.path for shard in shards if shard.kind == kind]

    model = engine_module(resolved.kind).model_path([shard.path for shard in shards])
    projector, draft = ([*of("projector"), ""][0], [*of("draft"), ""][0])
    return _Files(model, projector, draft, tuple(of("adapter")))


def _activation(spec: InstanceSpec, spare: SparePlan | None) -> ActivationPlan:
    return ActivationPlan(
        how=spec.activation,
        spare=spare,
        drain_seconds=spec.drain_seconds,
        confirm_seconds=spec.confirm_seconds,
    )


def _longest_stop_seconds() -> int:
    """The longest of all engines: the server that is stopped first may be of another engine."""
    return max(engine_module(kind).unit_needs.stop_seconds for kind in kinds())


def _ready_seconds(resolved: ResolvedInstance, shards: Sequence[ShardPlan]) -> int:
    """The engine's start and 20 seconds for each GiB of weights, unless the profile sets it."""
    if resolved.profile.ready_timeout_seconds:
        return resolved.profile.ready_timeout_seconds
    start = engine_module(resolved.kind).unit_needs.start_seconds
    return start + 20 * -(-sum(shard.size_bytes for shard in shards) // GIB)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
