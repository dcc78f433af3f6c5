"""The catalog: engines, models, profiles and more. To add one, add a TOML file.

Chat templates, patches and reference texts are plain files: catalog/chat-templates/,
catalog/patches/, catalog/references/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar

from corral_shared.hub import HUGGING_FACE
from pydantic import ConfigDict, Field, model_validator

from corral.catalog.drivers import DriverSource
from corral.catalog.image import Image
from corral.catalog.inheritance import SourcedProfile, read_profiles
from corral.catalog.layers import Found, Layer, found_files, read_toml, replaced, texts
from corral.catalog.profile import Profile
from corral.catalog.programs import ProgramSource
from corral.catalog.python_environment import PythonEnvironment
from corral.errors import CorralError
from corral.names import GitReference, GitUrl, Repository
from corral.schema import Frozen, did_you_mean, parse

# nvidia-smi puts them in front of a name that people leave them out of.
_MAKERS = re.compile(r"^((nvidia|geforce|tesla|quadro)\s+)+", re.IGNORECASE)

EngineKind = str
"""The name that an engine registers in corral/engines/."""


class Engine(Frozen):
    """A server program. File: catalog/engines/<name>.toml.

    Built from a pinned commit, installed as a Python environment (``python``), or an image of the
    site's own (``image``).
    """

    kind: EngineKind = Field(description="engine of Corral that serves it")
    python: PythonEnvironment | None = Field(
        default=None, description="instead of a build; the keys of a build are then unset"
    )
    image: Image | None = Field(
        default=None, description="instead of a build; its instances run in Apptainer"
    )
    repository: GitUrl = Field(default="", description="git URL that hosts clone")
    commit: GitReference = Field(
        default="", description="40 hex digits, or a tag or branch that `corral lock` resolves"
    )
    cmake_options: dict[str, str] = Field(
        default_factory=dict, description="-D options of every build"
    )
    cmake_options_cuda: dict[str, str] = Field(
        default_factory=dict, description="more -D options of builds for CUDA"
    )
    patches: tuple[str, ...] = Field(default=(), description="files of catalog/patches/, in order")
    targets: tuple[str, ...] = Field(default=(), description="cmake targets to build and install")
    minimum_driver: str = Field(
        default="0", description="minimum NVIDIA driver of a build for CUDA"
    )
    minimum_toolkit: str = Field(
        default="0", description="minimum CUDA toolkit of a build for CUDA"
    )

    @property
    def pinned(self) -> str:
        """What the lock file must match: the catalog's commit, or what is installed."""
        instead = self.python or self.image
        return instead.pinned if instead else self.commit

    @model_validator(mode="after")
    def _one_origin(self) -> Engine:
        required = ("repository", "commit", "targets")
        missing = [key for key in required if not getattr(self, key)]
        build_keys = [*required, "cmake_options", "cmake_options_cuda", "patches"]
        if self.python and self.image:
            raise ValueError("python, image: a release is one of the two")
        if self.python is None and self.image is None and missing:
            raise ValueError("; ".join(f'key "{key}" is missing' for key in missing))
        unused = [key for key in build_keys if getattr(self, key)]
        if unused and (self.python or self.image):
            what = "a Python environment" if self.python else "an image"
            raise ValueError(f"{', '.join(unused)}: {what} is not built")
        return self


class Platform(Frozen):
    """The tools of a distribution that decide the bytes of a release.

    File: catalog/platforms/<ID>-<VERSION_ID>.toml, after /etc/os-release.
    """

    compiler: str = Field(pattern=r"^[0-9]+$", description="major version of its C++ compiler")
    c_library: str = Field(pattern=r"^[0-9]+\.[0-9]+$", description="version of its C library")
    python: str = Field(pattern=r"^3\.[0-9]+$", description="version of its Python")


FileKind = Literal["weights", "projector", "draft", "adapter", "config"]
# "none": of an engine that loads no weights, or any.
WeightsFormat = Literal["gguf", "safetensors", "none"]


class Quant(Frozen):
    """One quant of a model: patterns over the paths in its repository."""

    files: str = Field(description='such as "UD-Q4_K_XL/*.gguf"')
    config: tuple[str, ...] = Field(
        default=(), description="patterns of small files that the engine reads beside the weights"
    )
    projector: str | None = Field(
        default=None,
        description='file that turns images into tokens (mmproj), such as "mmproj-F16.gguf"; '
        "fetched for profiles with vision",
    )
    engine: EngineKind | None = Field(default=None, description="only kind that can read it")

    @property
    def format(self) -> WeightsFormat | None:
        """The format of its weights, by the suffix of their pattern; None for another suffix."""
        known: dict[str, WeightsFormat] = {".gguf": "gguf", ".safetensors": "safetensors"}
        return next((form for suffix, form in known.items() if self.files.endswith(suffix)), None)

    @property
    def patterns(self) -> str:
        """All patterns, as the lock file records them."""
        beside = (self.projector,) if self.projector else ()
        return " ".join((self.files, *beside, *self.config))


class Model(Frozen):
    """A model on the hub. File: catalog/models/<name>.toml."""

    repo: Repository = Field(description="organisation/name on the hub")
    revision: GitReference = Field(default="main", description="branch, tag or commit to lock")
    gated: bool = Field(
        default=False, description="the hub serves it to users with granted access only"
    )
    train_context_tokens: int = Field(gt=0, description="longest context it was trained with")
    quants: dict[str, Quant] = Field(min_length=1, description="quant name -> its files")

    def needs_token(self, hub_url: str) -> bool:
        """Whether to send the operator's token: for gated models, to the hub that issued it."""
        return self.gated and hub_url.rstrip("/") == HUGGING_FACE


class Gpu(Frozen):
    """A GPU model, for plans without a GPU at hand. File: catalog/gpus/<name>.toml."""

    names: tuple[str, ...] = Field(
        min_length=1, description="patterns of the names that nvidia-smi reports"
    )
    short_names: tuple[str, ...] = Field(
        min_length=1, description='names to type, such as "A100 40GB"'
    )
    memory_mib: int = Field(gt=0, description="memory.total of nvidia-smi")
    compute_capability: str = Field(
        pattern=r"^[0-9]+\.[0-9]$", description='such as "8.0" for an A100'
    )

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is one of its names; case and spaces are ignored."""
        typed = _folded(name)
        short = any(typed == _folded(short) for short in self.short_names)
        return short or any(fnmatchcase(typed, _folded(pattern)) for pattern in self.names)


class Catalog(Frozen):
    """Everything under catalog/, by name (the file's name without .toml).

    + broken: ``profile NAME`` and the like -> the mistake in its file (tolerant reading only)
    + sources: profile -> key -> the file that its value comes from
    + replaced: files of a fleet's own catalog that count instead of Corral's of the same name
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engines: dict[str, Engine]
    models: dict[str, Model]
    profiles: dict[str, Profile]
    gpus: dict[str, Gpu] = Field(default_factory=dict)
    chat_templates: dict[str, str] = Field(default_factory=dict, description="file -> text")
    drivers: dict[str, DriverSource] = Field(default_factory=dict, description="by distribution")
    platforms: dict[str, Platform] = Field(default_factory=dict, description="by distribution")
    programs: dict[str, ProgramSource] = Field(default_factory=dict)
    patches: dict[str, str] = Field(default_factory=dict, description="file -> text")
    references: dict[str, str] = Field(default_factory=dict, description="file -> text")
    broken: dict[str, CorralError] = Field(default_factory=dict, exclude=True)
    sources: dict[str, dict[str, str]] = Field(default_factory=dict, exclude=True)
    replaced: tuple[str, ...] = Field(default=(), exclude=True)

    def engine(self, name: str, *, where: str) -> Engine:
        """The engine called ``name``; ``where`` names the caller. Raises CorralError."""
        return _pick("engine", self, self.engines, name, where)

    def model(self, name: str, *, where: str) -> Model:
        """The model called ``name``; ``where`` names the caller. Raises CorralError."""
        return _pick("model", self, self.models, name, where)

    def profile(self, name: str, *, where: str) -> Profile:
        """The profile called ``name``; ``where`` names the caller. Raises CorralError."""
        return _pick("profile", self, self.profiles, name, where)

    def sourced_profile(self, name: str, *, where: str) -> SourcedProfile:
        """Like ``profile``, with the files that its values come from. Raises CorralError."""
        profile = self.profile(name, where=where)
        return SourcedProfile(profile=profile, sources=self.sources.get(name, {}))

    def gpu(self, name: str, *, where: str) -> Gpu:
        """The GPU with a full or short name ``name``. Raises CorralError."""
        for gpu in self.gpus.values():
            if gpu.is_called(name):
                return gpu
        shorts = {short for gpu in self.gpus.values() for short in gpu.short_names}
        known = {short for short in shorts if short.replace("-", " ") not in shorts - {short}}
        what = f'unknown GPU "{name}"{did_you_mean(_MAKERS.sub("", name), known)}'
        raise CorralError(where, what, "name one of catalog/gpus/, or add a file there")

    def platform(self, name: str, *, where: str) -> Platform:
        """The platform called ``name``; ``where`` names the caller. Raises CorralError."""
        return _pick("platform", self, self.platforms, name, where)

    def chat_template(self, file: str, *, where: str) -> str:
        """The text of a chat template. Raises CorralError."""
        return _pick_text("chat template", "chat-templates", self.chat_templates, file, where)

    def patch(self, file: str, *, where: str) -> str:
        """The text of a patch. Raises CorralError."""
        return _pick_text("patch", "patches", self.patches, file, where)

    def reference(self, file: str, *, where: str) -> str:
        """The text of a perplexity reference. Raises CorralError."""
        return _pick_text("reference", "references", self.references, file, where)


def load_catalog(folder: Path, *, under: Path | None = None, tolerant: bool = False) -> Catalog:
    """Read every file of the catalog. Raises CorralError naming file and key.

    + under: a catalog whose files count where ``folder`` has none of the same name
    + tolerant: a mistake in an entry of engines, models, profiles or platforms is raised only for
      those that use it
    """
    broken: dict[str, CorralError] | None = {} if tolerant else None
    layers = (Layer(folder), *([Layer(under, "Corral's ")] if under else ()))
    profiles = _profiles(layers, broken)
    return Catalog(
        engines=_load(layers, "engines", Engine, broken),
        models=_load(layers, "models", Model, broken),
        profiles={name: found.profile for name, found in profiles.items()},
        gpus=_load(layers, "gpus", Gpu),
        drivers=_load(layers, "drivers", DriverSource),
        platforms=_load(layers, "platforms", Platform, broken),
        programs=_load(layers, "programs", ProgramSource),
        chat_templates=texts(layers, "chat-templates", "*.jinja"),
        patches=texts(layers, "patches", "*.patch"),
        references=texts(layers, "references", "*"),
        broken=broken or {},
        sources={name: found.sources for name, found in profiles.items()},
        replaced=replaced(layers),
    )


T = TypeVar("T", bound=Frozen)


def _load(
    layers: Sequence[Layer],
    folder: str,
    schema: type[T],
    broken: dict[str, CorralError] | None = None,
) -> dict[str, T]:
    """Entries by name; mistakes are collected in ``broken``, or raised where it is None."""
    entries = {}
    for file, *_ in found_files(layers, folder, "*.toml").values():
        name = file.path.stem
        try:
            entries[name] = _read(file, schema)
        except CorralError as error:
            if broken is None:
                raise
            broken[f"{schema.__name__.lower()} {name}"] = error
    return entries


def _read(file: Found, schema: type[T]) -> T:
    return parse(schema, read_toml(file), where=file.where, next_step=file.next_step)


def _profiles(
    layers: Sequence[Layer], broken: dict[str, CorralError] | None
) -> dict[str, SourcedProfile]:
    """As ``_load``, each with what it extends."""
    files = found_files(layers, "profiles", "*.toml")
    mistakes: dict[str, CorralError] | None = None if broken is None else {}
    found = read_profiles({name.removesuffix(".toml"): f for name, f in files.items()}, mistakes)
    if broken is not None and mistakes:
        broken |= {f"profile {name}": error for name, error in mistakes.items()}
    return found


def _pick(kind: str, catalog: Catalog, known: dict[str, T], name: str, where: str) -> T:
    if name in known:
        return known[name]
    if mistake := catalog.broken.get(f"{kind} {name}"):
        raise mistake
    hint = did_you_mean(name, known)
    raise CorralError(
        where,
        f'unknown {kind} "{name}"{hint}',
        f"name one of catalog/{kind}s/, or add a file there",
    )


def _pick_text(kind: str, folder: str, known: dict[str, str], file: str, where: str) -> str:
    if file in known:
        return known[file]
    what = f'unknown {kind} "{file}"{did_you_mean(file, known)}'
    raise CorralError(where, what, f"name a file of catalog/{folder}/, or add it there")


def _folded(name: str) -> str:
    return "".join(name.lower().split())
