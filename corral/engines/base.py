"""What the engines share: words of a command line, and refusals told all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from corral.catalog.profile import Profile, RopeScaling, Sampling
from corral.engines.opening_flags import REASONS
from corral.plan.host import ResolvedPlacement


class Problem(NamedTuple):
    """What an engine cannot do for a profile, and what to change."""

    what: str
    next_step: str


# A flag starts with a dash and a letter; -1 is a value.
_FLAG = re.compile(r"--?[a-zA-Z]")

# Flags of both engines that Corral decides, and where a profile or an inventory says them.
SHARED_FLAGS: dict[str, tuple[str, ...]] = {
    "the key model": ("-m", "--model"),
    "the key alias": ("-a", "--alias"),
    "the instance's address and port": (
        *("--host", "--port", "--path", "--ssl-key-file", "--ssl-cert-file"),
    ),
    "the instance's key file; a flag would show a secret": (
        *("--api-key", "--api-key-file", "-hft", "--hf-token"),
    ),
    "the lock file, which knows every byte that is served": (
        *("-mu", "--model-url", "-hfr", "--hf-repo", "-hff", "--hf-file", "--mmproj-url"),
    ),
    "the instance's gpus": ("-dev", "--device", "--rpc"),
    "the keys context_tokens_per_slot and slots": ("-c", "--ctx-size", "-np", "--parallel"),
    "the key continuous_batching": (*("-cb", "--cont-batching", "-nocb", "--no-cont-batching"),),
    "the keys batch_tokens and ubatch_tokens": ("-b", "--batch-size", "-ub", "--ubatch-size"),
    "the key rope_scaling": (
        *("--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"),
        "--yarn-orig-ctx",
    ),
    "the keys kv_type_k and kv_type_v": ("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"),
    "the key kv_on_gpu": ("-kvo", "--kv-offload", "-nkvo", "--no-kv-offload"),
    "the key flash_attention": ("-fa", "--flash-attn"),
    "the key placement and its companions": (
        *("-ngl", "--gpu-layers", "--n-gpu-layers", "-ot", "--override-tensor"),
        *("-cmoe", "--cpu-moe", "-ncmoe", "--n-cpu-moe", "--fit"),
    ),
    "the key split_mode": ("-sm", "--split-mode"),
    "the key tensor_split": ("-ts", "--tensor-split"),
    "the key main_gpu": ("-mg", "--main-gpu"),
    "the keys threads and batch_threads": ("-t", "--threads", "-tb", "--threads-batch"),
    "the key prompt_cache_mib": ("-cram", "--cache-ram"),
    "the keys chat_template and chat_template_file": (
        *("--jinja", "--no-jinja", "--chat-template", "--chat-template-file"),
    ),
    "the key reasoning_format": ("--reasoning-format",),
    "the key reasoning_budget": ("--reasoning-budget",),
    "the table sampling": (*("--temp", "--top-p", "--min-p", "--top-k", "--repeat-penalty"),),
    "the key metrics": ("--metrics",),
    "Corral, which serves no web page": ("--webui",),
}


def flags_of(argv: Iterable[str]) -> set[str]:
    """The flag words of a command line, as the server reads them: ``--a_b=c`` is ``--a-b``."""
    return {_spelling(word) for word in argv if _FLAG.match(word)}


def extra_flag_problems(profile: Profile, taken: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Words of ``extra_flags`` that belong to something else, or that open more than is served.

    + taken: what flags belong to -> their spellings
    """
    problems = []
    if profile.extra_flags and not _FLAG.match(profile.extra_flags[0]):
        what = f'extra_flags starts with "{profile.extra_flags[0]}", which is no flag'
        problems.append(Problem(what, "begin with a flag, one word each"))
    owners = {flag: owner for owner, flags in taken.items() for flag in flags}
    for flag in sorted(flags_of(profile.extra_flags) & owners.keys()):
        what = f"extra_flags: {flag} belongs to {owners[flag]}"
        problems.append(Problem(what, f"remove {flag} from extra_flags"))
    for name in sorted(_opening(profile.extra_flags) - owners.keys()):
        what = f"extra_flags: {name} is refused: it {REASONS[name]}"
        problems.append(Problem(what, f"remove {name} from extra_flags"))
    return problems


def _opening(words: Iterable[str]) -> set[str]:
    """Flags, and assignments to variables of the servers, that open more than Corral serves."""
    words = tuple(words)
    names = flags_of(words) | {word.partition("=")[0] for word in words}
    return names & REASONS.keys()


def gpu_problems(profile: Profile, gpus: int) -> list[Problem]:
    """Keys that name more GPUs than the instance has; ``gpus`` is 0 without any."""
    problems = []
    if gpus and profile.tensor_split and len(profile.tensor_split) > gpus:
        what = f"tensor_split has {len(profile.tensor_split)} shares for {_count(gpus)}"
        problems.append(Problem(what, "give a share for each GPU of the instance"))
    if gpus and profile.main_gpu is not None and profile.main_gpu >= gpus:
        what = f"main_gpu is {profile.main_gpu}, but the instance has {_count(gpus)}"
        problems.append(Problem(what, "count from 0 within the instance's GPUs"))
    return problems


def kv_words(profile: Profile) -> list[str]:
    """Slots, their context together, and the cache of keys and values."""
    words = ["--ctx-size", str(profile.context_tokens_per_slot * profile.slots)]
    words += ["--parallel", str(profile.slots)]
    words += ["--cache-type-k", profile.kv_type_k, "--cache-type-v", profile.kv_type_v]
    words += ["--flash-attn", "on" if profile.flash_attention else "off"]
    words += ["--batch-size", str(profile.batch_tokens)]
    words += ["--ubatch-size", str(profile.ubatch_tokens)]
    return words + rope_words(profile.rope_scaling)


def batching_words(profile: Profile) -> list[str]:
    """Whether requests share batches."""
    return [] if profile.continuous_batching else ["--no-cont-batching"]


def rope_words(scaling: RopeScaling | None) -> list[str]:
    """RoPE scaling, only when it is asked for."""
    if scaling is None:
        return []
    words = ["--rope-scaling", scaling.type, "--rope-scale", f"{scaling.factor:g}"]
    if scaling.original_context_tokens:
        words += ["--yarn-orig-ctx", str(scaling.original_context_tokens)]
    return words


def placement_words(profile: Profile, placement: ResolvedPlacement) -> list[str]:
    """Which tensors stay off the GPUs, and how the GPUs share the rest. Nothing without GPUs."""
    if placement.gpu_layers == 0:
        return []
    words = ["--cpu-moe"] if placement.experts_on_cpu else []
    words += optional("--n-cpu-moe", placement.cpu_moe_layers or None)
    # One list: of a flag given twice, mainline says that only the last counts.
    words += optional("--override-tensor", ",".join(placement.tensor_overrides) or None)
    words += optional("--split-mode", profile.split_mode)
    words += optional("--tensor-split", ",".join(f"{s:g}" for s in placement.tensor_split) or None)
    words += optional("--main-gpu", profile.main_gpu)
    return words + ([] if profile.kv_on_gpu else ["--no-kv-offload"])


def thread_words(profile: Profile) -> list[str]:
    """Threads for generation, and for prompts."""
    words = optional("--threads", profile.threads)
    return words + optional("--threads-batch", profile.batch_threads)


def sampling_words(sampling: Sampling) -> list[str]:
    """Defaults that a request may override."""
    return [
        *optional("--temp", sampling.temperature),
        *optional("--top-p", sampling.top_p),
        *optional("--min-p", sampling.min_p),
        *optional("--top-k", sampling.top_k),
        *optional("--repeat-penalty", sampling.repeat_penalty),
    ]


def optional(flag: str, value: object) -> list[str]:
    """The flag with its value, or nothing for None."""
    return [] if value is None else [flag, str(value)]


def _spelling(word: str) -> str:
    """Both servers take underscores for dashes in a long flag."""
    flag = word.partition("=")[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"
