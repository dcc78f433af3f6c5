"""Checks of a safetensors repository before it is locked: whole, and without code of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar

from corral_shared.text import printable_line
from pydantic import ConfigDict, Field

from corral.errors import CorralError
from corral.lock.shards import listed
from corral.schema import Frozen, parse_json

SUFFIX = ".safetensors"
_CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Architectures that vLLM and transformers have themselves: they ignore code of a repository.
NATIVE_ARCHITECTURES = ("Glm4ForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM")


class _Loose(Frozen):
    """A part of a document; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


_LooseT = TypeVar("_LooseT", bound=_Loose)


class _Code(_Loose):
    """Where a document names Python code of the repository."""

    auto_map: dict[str, Any] | None = None


class _Config(_Code):
    architectures: tuple[str, ...] = Field(min_length=1)


class _Index(_Loose):
    weight_map: dict[str, str] = Field(min_length=1)


def check_repository(
    weights: Sequence[str], small_files: Mapping[str, bytes], *, repo: str, where: str
) -> None:
    """Raises CorralError where an engine could not load the weights with the small files.

    + weights: paths of all shards; + small_files: path -> content; + where: the quant, for errors
    """
    folder = PurePosixPath(weights[0]).parent
    beside = {
        path.name: content
        for path, content in ((PurePosixPath(p), c) for p, c in small_files.items())
        if path.parent == folder
    }
    _check_present(beside, folder, repo, where)
    _check_code(beside, repo, where)
    _check_index(weights, beside, repo, where)


def _check_present(
    beside: Mapping[str, bytes], folder: PurePosixPath, repo: str, where: str
) -> None:
    """The configuration and a tokenizer are in the folder of the weights, where engines look."""
    tokenizers = [name for name in beside if name.startswith("tokenizer.")]
    missing = [
        *([] if _CONFIG in beside else [_CONFIG]),
        *([] if tokenizers else ["tokenizer.json"]),
    ]
    if missing:
        listed = " and ".join(str(folder / name) for name in missing)
        what = f"no pattern matches {listed}, which engines read beside the weights of {repo}"
        raise CorralError(f"{where}.config", what, "add a pattern for it")


def _check_code(beside: Mapping[str, bytes], repo: str, where: str) -> None:
    """Only code of this machine's own packages runs (trust_remote_code stays off)."""
    config = _document(_Config, _CONFIG, beside[_CONFIG], repo, where)
    if set(config.architectures) <= set(NATIVE_ARCHITECTURES):
        return
    named = [_CONFIG] if config.auto_map else []
    if _TOKENIZER_CONFIG in beside:
        tokenizer = _document(_Code, _TOKENIZER_CONFIG, beside[_TOKENIZER_CONFIG], repo, where)
        named += [_TOKENIZER_CONFIG] if tokenizer.auto_map else []
    if named:
        architectures = printable_line(", ".join(config.architectures))
        what = (
            f"{repo} ({architectures}) brings Python code of its own: auto_map in "
            f"{' and '.join(named)}. An engine would run it with trust_remote_code, which stays off"
        )
        raise CorralError(where, what, "choose a repository that engines load without its code")


def _check_index(
    weights: Sequence[str], beside: Mapping[str, bytes], repo: str, where: str
) -> None:
    """The index names exactly the locked shards; a single file needs none."""
    shards = {PurePosixPath(path).name for path in weights}
    indexes = [name for name in beside if name.endswith(f"{SUFFIX}.index.json")]
    if not indexes and len(shards) > 1:
        what = f"no pattern matches the index of the {len(shards)} shards of {repo}"
        raise CorralError(f"{where}.config", what, 'add "*.index.json"')
    if len(indexes) > 1:
        what = f"the patterns match {len(indexes)} indexes: {', '.join(sorted(indexes))}"
        raise CorralError(f"{where}.config", what, "name one")
    for name in indexes:
        named = set(_document(_Index, name, beside[name], repo, where).weight_map.values())
        missing, unknown = sorted(named - shards), sorted(shards - named)
        if missing:
            what = f"{name} of {repo} names {_shown(missing)}, which `files` does not match"
            raise CorralError(f"{where}.files", what, "correct the pattern, or the revision")
        if unknown:
            what = f"`files` matches {_shown(unknown)}, which {name} of {repo} does not name"
            raise CorralError(f"{where}.files", what, "correct the pattern, or the revision")


def _document(schema: type[_LooseT], name: str, content: bytes, repo: str, where: str) -> _LooseT:
    step = "choose a revision whose files are whole"
    return parse_json(schema, content, where=f"{where}: {name} of {repo}", next_step=step)


def _shown(names: Sequence[str]) -> str:
    return listed([printable_line(name) for name in names])
