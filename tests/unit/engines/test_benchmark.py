"""Command lines of the engines' benchmark programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from corral.catalog.entries import EngineKind, load_catalog
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.benchmark import BenchArguments, Lengths, Sizes, sizes
from corral.errors import CorralError
from corral.plan.placement import ResolvedPlacement
from tests.samples import EXAMPLES

ON_GPU = ResolvedPlacement(gpu_layers="all")
ON_CPU = ResolvedPlacement(gpu_layers=0)


def profile(**changes: Any) -> Profile:
    values = {"model": "m", "quant": "q", "engine": "e", "slots": 1}
    return Profile(**{**values, "context_tokens_per_slot": 32768, **changes})


def words(
    one: Profile,
    placement: ResolvedPlacement = ON_GPU,
    *,
    kind: EngineKind = "llama.cpp",
    repetitions: int = 5,
) -> tuple[BenchArguments, ...]:
    return engine_module(kind).bench_arguments(
        one, placement, programs="/bin", model="/m.gguf", repetitions=repetitions
    )


def value(argv: Sequence[str], flag: str) -> str:
    assert argv.count(flag) == 1, argv
    return argv[argv.index(flag) + 1]


def test_depths_are_quarters_of_a_slot_in_whole_micro_batches() -> None:
    assert sizes(profile()) == Sizes(512, 128, (0, 8192, 16384, 32256))
    assert sizes(profile(context_tokens_per_slot=38912, ubatch_tokens=2048)).depths_tokens == (
        *(0, 8192, 18432, 36864),
    )


def test_what_is_measured_fits_a_short_context() -> None:
    found = sizes(profile(context_tokens_per_slot=300, batch_tokens=64, ubatch_tokens=64))
    assert found == Sizes(150, 128, (0, 64, 128))
    assert max(found.depths_tokens) + found.prompt_tokens <= 300


def test_one_slot_is_measured_by_llama_bench_alone() -> None:
    (one,) = words(profile(kv_type_k="q8_0", kv_type_v="q4_0", batch_tokens=4096, threads=7))
    assert (one.argv[0], one.repeat) == ("/bin/llama-bench", 1)
    expected = {
        "--model": "/m.gguf", "--n-depth": "0,8192,16384,32256", "--repetitions": "5",
        "--n-prompt": "512", "--n-gen": "128", "--output": "jsonl", "--cache-type-k": "q8_0",
        "--cache-type-v": "q4_0", "--batch-size": "4096", "--ubatch-size": "512",
        "--flash-attn": "on", "--n-gpu-layers": "999", "--threads": "7", "--load-mode": "mmap",
    }  # fmt: skip
    assert {flag: value(one.argv, flag) for flag in expected} == expected


def test_several_slots_are_also_measured_together_each_with_its_context() -> None:
    _, batched = words(profile(slots=4), repetitions=3)
    assert batched.argv[0] == "/bin/llama-batched-bench"
    assert (value(batched.argv, "-npl"), batched.lines) == ("4,4,4", 3)
    assert value(batched.argv, "--ctx-size") == str(4 * 32768)
    assert value(batched.argv, "--n-gpu-layers") == "all"


def test_placement_is_that_of_the_instance() -> None:
    placement = ResolvedPlacement(
        gpu_layers=20, experts_on_cpu=True, tensor_overrides=("a=CPU", "b=CPU"), tensor_split=(3, 1)
    )
    (one,) = words(profile(split_mode="layer", main_gpu=1, kv_on_gpu=False), placement)
    experts = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
    assert value(one.argv, "--override-tensor") == f"a=CPU;b=CPU;{experts}"
    assert value(one.argv, "--tensor-split") == "3/1"
    assert value(one.argv, "--n-gpu-layers") == "20"
    assert value(one.argv, "--no-kv-offload") == "1"
    assert (value(one.argv, "--split-mode"), value(one.argv, "--main-gpu")) == ("layer", "1")


def test_on_the_cpu_nothing_is_said_of_gpus() -> None:
    (one,) = words(profile(), ON_CPU)
    assert value(one.argv, "--n-gpu-layers") == "0"
    assert not {"--override-tensor", "--split-mode", "--tensor-split"} & set(one.argv)


def test_other_threads_for_prompts_are_a_run_of_their_own() -> None:
    prompt, generation = words(profile(threads=8, batch_threads=16))
    assert [value(prompt.argv, f) for f in ("--n-prompt", "--n-gen", "--threads")] == [
        *("512", "0", "16"),
    ]
    assert [value(generation.argv, f) for f in ("--n-prompt", "--n-gen", "--threads")] == [
        *("0", "128", "8"),
    ]


def test_ik_sweeps_one_slot_once_for_each_repetition() -> None:
    one = profile(slots=2, graph_reuse=True, extra_flags=("-khad",), load_mode="none")
    (sweep,) = words(one, kind="ik_llama.cpp", repetitions=3)
    assert (sweep.argv[0], sweep.repeat) == ("/bin/llama-sweep-bench", 3)
    assert (value(sweep.argv, "--ctx-size"), value(sweep.argv, "--parallel")) == ("32768", "1")
    assert {"--graph-reuse", "-khad", "--no-mmap"} < set(sweep.argv)
    assert value(sweep.argv, "--n-predict") == "128"


@pytest.mark.parametrize(
    ("context", "ubatch", "swept"), [(38912, 4096, 36864), (1152, 384, 768), (100, 64, 256)]
)
def test_a_sweep_ends_with_a_whole_micro_batch(context: int, ubatch: int, swept: int) -> None:
    one = profile(context_tokens_per_slot=context, batch_tokens=4096, ubatch_tokens=ubatch)
    (sweep,) = words(one, kind="ik_llama.cpp")
    assert value(sweep.argv, "--ctx-size") == str(swept)


def test_what_the_programs_do_not_have_is_told() -> None:
    one = profile(mtp_draft_tokens=1, extra_flags=("--x",))
    assert engine_module("llama.cpp").left_out(one) == ("mtp_draft_tokens", "extra_flags")
    assert engine_module("ik_llama.cpp").left_out(one) == ("mtp_draft_tokens",)
    assert engine_module("llama.cpp").left_out(profile()) == ()


def test_every_profile_of_the_catalog_can_be_measured() -> None:
    catalog = load_catalog(EXAMPLES / "catalog")
    for one in catalog.profiles.values():
        kind = catalog.engines[one.engine].kind
        programs = {command.argv[0] for command in words(one, kind=kind)}
        assert ("/bin/llama-sweep-bench" in programs) == (kind == "ik_llama.cpp")


def of_lengths(
    one: Profile, lengths: Lengths, kind: EngineKind = "llama.cpp"
) -> tuple[BenchArguments, ...]:
    return engine_module(kind).bench_arguments(
        one, ON_GPU, programs="/bin", model="/m.gguf", repetitions=5, lengths=lengths
    )


def test_lengths_can_be_chosen() -> None:
    alone, together = of_lengths(profile(slots=2), Lengths(8000, 1000))
    assert value(alone.argv, "--n-prompt") == "8000"
    assert value(alone.argv, "--n-gen") == "1000"
    # The deepest leaves space for the prompt.
    assert value(alone.argv, "--n-depth") == "0,8192,16384,24576"
    assert (value(together.argv, "-npp"), value(together.argv, "-ntg")) == ("8000", "1000")
    (sweep,) = of_lengths(profile(), Lengths(generated_tokens=64), "ik_llama.cpp")
    assert value(sweep.argv, "--n-predict") == "64"
    assert of_lengths(profile(), Lengths()) == words(profile())


def test_one_length_leaves_the_other_as_suggested() -> None:
    assert sizes(profile(), Lengths(20000)) == Sizes(20000, 128, (0, 8192, 12288))
    assert sizes(profile(), Lengths(generated_tokens=1))[:2] == (512, 1)


@pytest.mark.parametrize(
    ("lengths", "kind", "what"),
    [
        (Lengths(32768, 1), "llama.cpp", "do not fit in the context of a slot, 32768 tokens"),
        (Lengths(None, 32768), "llama.cpp", "a prompt of 512 and 32768 generated tokens: do not"),
        (Lengths(8000), "ik_llama.cpp", "measures prompts of one micro-batch, 512 tokens"),
        (Lengths(None, 513), "ik_llama.cpp", "generates at most one micro-batch, 512 tokens"),
    ],
)
def test_lengths_that_cannot_be_measured_are_refused(
    lengths: Lengths, kind: EngineKind, what: str
) -> None:
    with pytest.raises(CorralError, match=what):
        of_lengths(profile(), lengths, kind)
