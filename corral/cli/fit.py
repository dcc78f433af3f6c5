"""`corral fit`: whether a quant, with a profile, fits on GPUs, before weights are fetched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from corral.catalog.entries import Catalog
from corral.catalog.profile import Profile
from corral.cli.documents import Document
from corral.cli.select import inventories, inventory_option, print_mistakes
from corral.cli.views.fit import answer_lines, offer_lines
from corral.engines import reading, refuse_impossible, resolve_placement
from corral.errors import CorralError
from corral.fit.answer import Answer, TargetGpu, answer
from corral.fit.headers import HeaderStore
from corral.fit.model import ModelFile
from corral.fit.offers import Offer, offers
from corral.fit.place import DoesNotFitError
from corral.fit.safetensors.answer import CountedAnswer
from corral.fit.safetensors.answer import answer as answer_by_engine
from corral.fit.safetensors.offers import ParallelOffer, parallel_offers
from corral.fit.sources import AnyModel, LockedModels
from corral.fit.targets import host_targets, named_targets
from corral.host.answers import GPUS
from corral.host.state import GpuHost
from corral.inventory.hosts import Host
from corral.lock.lock_file import LockedModel, read_lock
from corral.model_files.model import SafetensorsModel
from corral.paths import default_headers_folder
from corral.planning.load import read_catalog
from corral.planning.resolved import refuse_long_context, refuse_unreadable
from corral.project import LOCK_FILE, project_root
from corral.remote.client import travelling_helper
from corral.remote.ssh import typed_command
from corral.schema import did_you_mean
from corral.sources.hub_token import operator_token
from corral.terminal import echo

HUB_URL = "https://huggingface.co"
_MIB = 1024**2


_ANSWER = Document(
    "fit-profile",
    TypeAdapter(CountedAnswer | Answer),
    "corral fit",
    about="Whether a profile fits, and the memory that it needs; with --profile.",
)
_OFFERS = Document(
    "fit-offers",
    TypeAdapter(list[Offer | ParallelOffer]),
    "corral fit",
    about="Quants and contexts that fit, best first; without --profile.",
)


@click.command()
@click.argument("model", metavar="MODEL[/QUANT]|REPOSITORY[/QUANT]")
@click.option("--profile", "profile_name", help="Profile of catalog/profiles/.")
@click.option("--engine", help="Engine, instead of the profile's.")
@click.option("--gpu", "gpus", multiple=True, help='Such as "A100 40GB" or "4 x H200"; repeatable.')
@click.option("--ram", "ram_gib", type=click.IntRange(min=1), help="Host memory in GiB.")
@click.option("--host", "host_name", help="Host of the inventories, with its free memory now.")
@click.option("--hub", "hub_url", help=f"Hub of the headers; the host's, or {HUB_URL}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def fit(
    model: str,
    profile_name: str | None,
    engine: str | None,
    gpus: tuple[str, ...],
    ram_gib: int | None,
    host_name: str | None,
    hub_url: str | None,
    as_json: bool,
    inventory: Path | None,
) -> None:
    """Show whether a MODEL of the catalog, or a REPOSITORY of the hub, fits, and what it needs.

    Without --profile: the quants and contexts that fit, best first. Exit code 1: it does not fit.
    """
    root = project_root()
    catalog = read_catalog(root, tolerant=True)
    host = _host(host_name, inventory) if host_name else None
    if bool(host) == bool(gpus or ram_gib):
        what = "needs either a host or the size of one"
        raise CorralError("corral fit", what, "add --host, or --gpu and --ram")
    if host:
        gpus_now = _ask(host)
        targets = host_targets(host, gpus_now, profile_name)
        memory_mib = gpus_now.memory.total_mib
    else:
        targets, memory_mib = named_targets(catalog, gpus), ram_gib * 1024 if ram_gib else 0
    hub = (hub_url or (host.spec.weights_url if host else HUB_URL)).rstrip("/")
    catalog, name, quant = _named(catalog, model, hub)
    models = LockedModels(
        catalog,
        read_lock(root / LOCK_FILE),
        hub,
        HeaderStore(default_headers_folder()),
        _at_hub(catalog, hub),
    )
    question = _Question(models, name, quant, targets, memory_mib or None)
    if profile_name:
        found = question.answer(profile_name, engine)
        if as_json:
            _ANSWER.show(found)
        else:
            echo("\n".join(answer_lines(found)))
        sys.exit(0 if found.fits else 1)
    listed, parallel = question.offers(), question.parallel_offers()
    if as_json:
        _OFFERS.show([*listed, *parallel])
    else:
        echo("\n".join(offer_lines(listed, parallel)))
    sys.exit(0 if listed or parallel else 1)


def _named(catalog: Catalog, text: str, hub: str) -> tuple[Catalog, str, str]:
    """Name and quant of a model; one that only the hub has is added to the catalog.

    Raises CorralError.
    """
    for name, model in catalog.models.items():
        if text == model.repo or text.startswith(f"{model.repo}/"):
            return catalog, name, text.removeprefix(model.repo).removeprefix("/")
    name, _, quant = text.partition("/")
    if name in catalog.models or not quant:
        return catalog, name, quant
    # Importing the hub's client takes longer than a question about a locked model.
    from corral.lock.unlocked import hub_model

    organisation, repository, quant = (*text.split("/", 2), "")[:3]
    try:
        found = hub_model(f"{organisation}/{repository}", hub, gated=operator_token() is not None)
    except CorralError as error:
        repositories = {model.repo for model in catalog.models.values()}
        hint = did_you_mean(text, repositories)
        hint = hint if "did you mean" in hint else ""
        what = f'no model of the catalog has the repository "{text}"{hint}, and {error.what}'
        raise CorralError("corral fit", what, error.next_step) from error
    models = {**catalog.models, found.name: found.model}
    return catalog.model_copy(update={"models": models}), found.name, quant


def _at_hub(catalog: Catalog, hub: str) -> Callable[[str, str], LockedModel]:
    """Entries of quants that no lock has; each repository is asked for once."""
    asked: dict[str, Any] = {}

    def entry(name: str, quant: str) -> LockedModel:
        from corral.lock.unlocked import HubModel

        if name not in asked:
            asked[name] = HubModel(name, catalog.models[name], hub)
            echo(f"{name} is not locked: its files are those that {hub} has now", err=True)
        found: LockedModel = asked[name].entry(quant)
        return found

    return entry


@dataclass(frozen=True)
class _Question:
    """A model, its quant if given, and the target GPUs."""

    models: LockedModels
    model: str
    quant: str
    targets: Sequence[TargetGpu]
    memory_mib: int | None

    def offers(self) -> list[Offer]:
        """All offers of quants in GGUF, best first. Raises CorralError as `_files` does."""
        files = {q: file for q, file in self._files.items() if isinstance(file, ModelFile)}
        return offers(files, self.targets, self.memory_mib)

    def parallel_offers(self) -> list[ParallelOffer]:
        """All offers of quants in safetensors, best first. Raises CorralError as `_files` does."""
        files = {q: file for q, file in self._files.items() if isinstance(file, SafetensorsModel)}
        kind = next(iter(reading("safetensors")))
        return parallel_offers(files, self.targets, kind=kind)

    @cached_property
    def _files(self) -> dict[str, AnyModel]:
        """The quants asked for. Raises CorralError for an unlocked or unknown quant."""
        known = self.models.catalog.model(self.model, where="corral fit").quants
        quants = [self.quant] if self.quant else [q for q in known if self._may_fit(q)]
        files = {quant: self.models.read(self.model, quant) for quant in quants}
        for quant, file in files.items():
            if file.unknown:
                next_step = "add --profile: then its weights are counted, nothing else"
                raise CorralError(f"{self.model}/{quant}", file.unknown, next_step)
        return files

    def _may_fit(self, quant: str) -> bool:
        """Whether its weights alone are within all memory: else its headers need not be read."""
        if self.memory_mib is None:
            return True
        room_mib = self.memory_mib + sum(one.memory_mib for one in self.targets)
        return self.models.size_bytes(self.model, quant) <= room_mib * _MIB

    def answer(self, name: str, engine: str | None) -> Answer:
        """The need of a profile on each device. Raises CorralError for impossible settings."""
        where = f"profile {name}"
        profile = self._profile(name, engine)
        catalog = self.models.catalog
        kind = catalog.engine(profile.engine, where=where).kind
        on = self.targets if profile.placement != "cpu" and profile.gpu_layers != 0 else []
        trained = catalog.model(self.model, where="corral fit").train_context_tokens
        refuse_unreadable(catalog, self.model, profile.quant, kind, where=where)
        refuse_long_context(profile, self.model, trained, where)
        refuse_impossible(profile, engine=profile.engine, kind=kind, gpus=len(on), where=where)
        placement = resolve_placement(profile, gpus=len(on))
        file = self.models.read_for(self.model, profile)
        if isinstance(file, SafetensorsModel):
            return answer_by_engine(
                file,
                profile,
                placement,
                kind=kind,
                targets=on,
                host_memory_mib=self.memory_mib,
            )
        try:
            return answer(
                file,
                profile,
                placement,
                kind=kind,
                targets=on,
                host_memory_mib=self.memory_mib,
                name=name,
            )
        except DoesNotFitError as error:
            next_step = f"lower the context, or list what fits: corral fit {self.model}"
            raise CorralError(where, str(error), next_step) from error

    def _profile(self, name: str, engine: str | None) -> Profile:
        """The profile with this model, quant and engine."""
        catalog: Catalog = self.models.catalog
        profile = catalog.profile(name, where="corral fit")
        quants = catalog.model(self.model, where="corral fit").quants
        usual = profile.quant if profile.quant in quants else next(iter(quants))
        changes = {
            "model": self.model,
            "quant": self.quant or usual,
            "engine": engine or profile.engine,
        }
        return profile.model_copy(update=changes)


def _host(name: str, inventory: Path | None) -> Host:
    known = inventories(inventory)
    print_mistakes(known.mistakes)
    found = [host for host in known.hosts if host.name == name]
    if len(found) != 1:
        what = f"{len(found)} hosts have this name"
        raise CorralError(name, what, "see inventories/, or add -i INVENTORY")
    if mistake := known.of(found[0]).mistakes.get(name):
        raise mistake
    return found[0]


def _ask(host: Host) -> GpuHost:
    """The GPUs of a host. Raises CorralError when it does not answer, or shows no GPU."""
    found = travelling_helper(host).ask(["gpus"], GPUS, "{}")
    if host.spec.gpus and not found.gpus:
        problem = found.problem or "nvidia-smi shows no GPU"
        raise CorralError(host.name, problem, f"run `{typed_command(host)} nvidia-smi`")
    return found
