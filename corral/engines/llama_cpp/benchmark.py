"""Mainline's benchmark programs: llama-bench, and llama-batched-bench for several slots.

Flags as of commit 0c1e57098bba (2026-10-01).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corral.catalog.profile import Profile
from corral.engines.benchmark import (
    AS_SUGGESTED,
    BenchArguments,
    Case,
    Lengths,
    Sample,
    Sizes,
    sizes,
)
from corral.engines.flag_table import Settings
from corral.engines.llama.rows import BATCHES, CACHE, DEVICES, KV, LOADING, THREADS
from corral.engines.llama.server import sampled
from corral.engines.llama_cpp.flags import FLAGS
from corral.plan.placement import ResolvedPlacement

# The override of --cpu-moe (common.h, LLM_FFN_EXPS_REGEX); llama-bench has no such flag.
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
# llama-bench accepts numbers only: "all" is more layers than any model has.
_ALL_LAYERS = "999"


def bench_arguments(
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    programs: str,
    model: str,
    repetitions: int,
    lengths: Lengths = AS_SUGGESTED,
) -> tuple[BenchArguments, ...]:
    """All commands for a profile.

    + programs: bin folder of the release; + model: first shard
    """
    size = sizes(profile, lengths)
    commands = _llama_bench(profile, placement, programs, model, repetitions, size)
    alone = [BenchArguments(tuple(argv)) for argv in commands]
    if profile.slots == 1:
        return tuple(alone)
    together = _batched(profile, placement, programs, model, repetitions, size)
    return (*alone, BenchArguments(tuple(together), lines=repetitions))


def left_out(profile: Profile) -> tuple[str, ...]:
    """Keys of a profile that the server supports and the benchmark does not."""
    is_set = {
        "mtp_draft_tokens": profile.mtp_draft_tokens is not None,
        "extra_flags": bool(profile.extra_flags),
        "rope_scaling": profile.rope_scaling is not None,
    }
    return tuple(key for key, left_out in is_set.items() if left_out)


def _llama_bench(
    profile: Profile,
    placement: ResolvedPlacement,
    programs: str,
    model: str,
    repetitions: int,
    size: Sizes,
) -> list[list[str]]:
    """One command, or one each for prompts and generation where their threads differ."""
    settings = Settings(profile=profile, placement=placement)
    argv = [f"{programs}/llama-bench", "--model", model, "--offline", "--progress"]
    argv += ["--output", "jsonl", "--repetitions", str(repetitions)]
    argv += ["--n-depth", ",".join(map(str, size.depths_tokens))]
    argv += FLAGS.arguments(settings, CACHE, BATCHES, LOADING)
    argv += [*_bench_placement(profile, placement), *_optional("--numa", profile.numa)]
    prompt = ["--n-prompt", str(size.prompt_tokens)]
    generation = ["--n-gen", str(size.generated_tokens)]
    threads = _optional("--threads", profile.threads)
    if profile.batch_threads in (None, profile.threads):
        return [[*argv, *prompt, *generation, *threads]]
    batch_threads = ["--threads", str(profile.batch_threads)]
    return [
        [*argv, *prompt, "--n-gen", "0", *batch_threads],
        [*argv, "--n-prompt", "0", *generation, *threads],
    ]


def _bench_placement(profile: Profile, placement: ResolvedPlacement) -> list[str]:
    """Flags for placement; in llama-bench a comma separates tests, so lists use ; and /."""
    layers = _ALL_LAYERS if placement.gpu_layers == "all" else str(placement.gpu_layers)
    flags = ["--n-gpu-layers", layers]
    if placement.gpu_layers == 0:
        return flags
    overrides = [*placement.tensor_overrides, *([_EXPERTS] if placement.experts_on_cpu else [])]
    flags += _optional("--n-cpu-moe", placement.cpu_moe_layers or None)
    flags += _optional("--override-tensor", ";".join(overrides) or None)
    flags += _optional("--split-mode", profile.split_mode)
    flags += _optional("--tensor-split", "/".join(f"{s:g}" for s in placement.tensor_split) or None)
    flags += _optional("--main-gpu", profile.main_gpu)
    return flags + ([] if profile.kv_on_gpu else ["--no-kv-offload", "1"])


def _batched(
    profile: Profile,
    placement: ResolvedPlacement,
    programs: str,
    model: str,
    repetitions: int,
    size: Sizes,
) -> list[str]:
    """All slots at once, on short prompts; -npl lists the number of sequences per repetition."""
    settings = Settings(profile=profile, placement=placement)
    argv = [f"{programs}/llama-batched-bench", "--model", model, "--offline"]
    argv += [*FLAGS.arguments(settings, *KV, DEVICES, LOADING, THREADS), "--output-format", "jsonl"]
    argv += ["-npp", str(size.prompt_tokens), "-ntg", str(size.generated_tokens)]
    return [*argv, "-npl", ",".join([str(profile.slots)] * repetitions)]


def _optional(flag: str, value: object) -> list[str]:
    return [] if value is None else [flag, str(value)]


def bench_samples(program: str, row: dict[str, Any]) -> Iterator[Sample]:
    """Samples in a line of one of the programs. Raises KeyError for another program."""
    return {"llama-bench": _alone, "llama-batched-bench": _together}[program](row)


def _alone(row: dict[str, Any]) -> Iterator[Sample]:
    prompt = row["n_prompt"] > 0
    case = Case("prompt" if prompt else "generation", row["n_depth"], 1)
    yield Sample(case, row["n_prompt"] if prompt else row["n_gen"], row["samples_ts"])


def _together(row: dict[str, Any]) -> Iterator[Sample]:
    """Speeds of all sequences together; each generates after its own prompt."""
    return sampled(row, "pp", row["pl"], "")
