"""The catalog: engines, models and profiles, one TOML file each. Adding one is adding a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from corral.errors import CorralError
from corral.schema import Frozen, did_you_mean, parse

KvType = Literal["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class Engine(Frozen):
    """A server program, built from a pinned commit. File: catalog/engines/<name>.toml."""

    kind: Literal["llama.cpp"]
    repository: str = Field(description="git URL that production clones")
    commit: str = Field(description="40 hex digits, or a tag or branch that `corral lock` resolves")
    cmake_options: dict[str, str] = Field(default_factory=dict)
    cmake_options_cuda: dict[str, str] = Field(default_factory=dict)
    targets: tuple[str, ...] = Field(min_length=1)


class Quant(Frozen):
    """One quant of a model: a pattern over the paths in its repository."""

    files: str = Field(description='such as "UD-Q4_K_XL/*.gguf"')


class Model(Frozen):
    """A model on the hub. File: catalog/models/<name>.toml."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(default="main", description="branch, tag or commit to lock")
    train_context_tokens: int = Field(gt=0)
    quants: dict[str, Quant] = Field(min_length=1)


class Sampling(Frozen):
    """Sampling defaults of the server; a request may still say otherwise."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    repeat_penalty: float | None = Field(default=None, gt=0)


class Profile(Frozen):
    """How a model is served. File: catalog/profiles/<name>.toml."""

    model: str
    quant: str
    engine: str
    alias: str | None = Field(default=None, description="name in the API; the model's if unset")
    context_tokens_per_slot: int = Field(gt=0)
    slots: int = Field(gt=0)
    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "f16"
    flash_attention: bool = True
    batch_tokens: int = Field(default=2048, gt=0)
    ubatch_tokens: int = Field(default=512, gt=0)
    gpu_layers: int | Literal["all"] = "all"
    threads: int | None = Field(default=None, gt=0)
    prompt_cache_mib: int = Field(default=8192, ge=0, description="host memory for saved prompts")
    metrics: bool = True
    listen: Literal["tcp", "unix"] = "tcp"
    reasoning_format: Literal["auto", "none", "deepseek"] = "auto"
    ready_timeout_seconds: int | None = Field(default=None, gt=0)
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.kv_type_v not in ("f16", "bf16") and not self.flash_attention:
            raise ValueError("kv_type_v is quantized, which needs flash_attention = true")
        if self.ubatch_tokens > self.batch_tokens:
            raise ValueError("ubatch_tokens is larger than batch_tokens")
        return self


class Catalog(Frozen):
    """Everything under catalog/, by name (the file's name without .toml)."""

    engines: dict[str, Engine]
    models: dict[str, Model]
    profiles: dict[str, Profile]

    def engine(self, name: str, *, where: str) -> Engine:
        """The engine called ``name``; ``where`` names who asks. Raises CorralError."""
        return _pick("engine", self.engines, name, where)

    def model(self, name: str, *, where: str) -> Model:
        """The model called ``name``; ``where`` names who asks. Raises CorralError."""
        return _pick("model", self.models, name, where)

    def profile(self, name: str, *, where: str) -> Profile:
        """The profile called ``name``; ``where`` names who asks. Raises CorralError."""
        return _pick("profile", self.profiles, name, where)


def load_catalog(folder: Path) -> Catalog:
    """Read catalog/{engines,models,profiles}/*.toml. Raises CorralError naming file and key."""
    return Catalog(
        engines=_load(folder / "engines", Engine),
        models=_load(folder / "models", Model),
        profiles=_load(folder / "profiles", Profile),
    )


T = TypeVar("T", bound=Frozen)


def _load(folder: Path, schema: type[T]) -> dict[str, T]:
    return {path.stem: _read(path, schema) for path in sorted(folder.glob("*.toml"))}


def _read(path: Path, schema: type[T]) -> T:
    where = "/".join(path.parts[-3:])
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorralError(where, f"not readable as TOML: {error}", f"edit {where}") from error
    return parse(schema, data, where=where, next_step=f"edit {where}")


def _pick(kind: str, known: dict[str, T], name: str, where: str) -> T:
    if name in known:
        return known[name]
    hint = did_you_mean(name, known)
    raise CorralError(
        where,
        f'unknown {kind} "{name}"{hint}',
        f"name one of catalog/{kind}s/, or add a file there",
    )
