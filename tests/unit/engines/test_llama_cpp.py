"""Mainline llama.cpp: exact command lines, what it cannot do, its build."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Engine
from corral.catalog.profile import KvType
from corral.engines import engine_module
from corral.engines.flag_table import flags_of
from corral.plan.instance import Endpoint
from tests.unit.engine_profiles import PORTABLE, argv, profile, refusals

ENGINE = Engine(
    kind="llama.cpp",
    repository="https://git.example.com/x",
    commit="c0" * 20,
    cmake_options={"GGML_NATIVE": "OFF"},
    cmake_options_cuda={"GGML_CUDA": "ON"},
    targets=("llama-server",),
)


def test_every_portable_key_becomes_mainlines_flags() -> None:
    assert argv("llama.cpp", profile(**PORTABLE)) == (
        "/x/llama-server",
        *("--model", "/x/model.gguf", "--alias", "small"),
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--api-key-file", "/x/keys", "--device", "CUDA0,CUDA1"),
        *("--ctx-size", "4096", "--parallel", "2"),
        *("--cache-type-k", "q8_0", "--cache-type-v", "q8_0"),
        *("--flash-attn", "on"),
        *("--batch-size", "2048", "--ubatch-size", "512"),
        *("--rope-scaling", "yarn", "--rope-scale", "2.5", "--yarn-orig-ctx", "4096"),
        "--no-cont-batching",
        *("--n-gpu-layers", "40", "--fit", "off"),
        *("--n-cpu-moe", "5", "--override-tensor", "exps=CPU,attn=CPU"),
        *("--split-mode", "layer", "--tensor-split", "3,1.5", "--main-gpu", "1"),
        "--no-kv-offload",
        *("--load-mode", "mmap+mlock"),
        *("--threads", "6", "--threads-batch", "12"),
        *("--cache-ram", "8192"),
        *("--jinja", "--reasoning-format", "deepseek-legacy", "--reasoning-budget", "0"),
        *("--spec-type", "draft-mtp", "--spec-draft-n-max", "2"),
        *("--temp", "0.6", "--top-p", "0.95", "--min-p", "0.01", "--top-k", "40"),
        *("--repeat-penalty", "1.1"),
        "--metrics",
        *("--no-ui", "--offline"),
        "--check-tensors",
    )


def test_what_is_possible_has_no_problem() -> None:
    assert refusals("llama.cpp", **PORTABLE) == ""


@pytest.mark.parametrize(
    ("gpus", "changes", "named"),
    [
        (1, {}, "CUDA0"),
        (3, {"gpu_layers": 4}, "CUDA0,CUDA1,CUDA2"),
        (0, {}, None),
        (2, {"gpu_layers": 0}, None),
        (2, {"placement": "cpu"}, None),
    ],
)
def test_the_server_ends_where_a_gpu_of_its_set_is_missing(
    gpus: int, changes: dict[str, Any], named: str | None
) -> None:
    words = argv("llama.cpp", profile(**changes), gpus=gpus)
    assert ("--device" in words) is (named is not None)
    assert named is None or words[words.index("--device") + 1] == named


def test_experts_on_the_cpu_is_one_flag() -> None:
    words = argv("llama.cpp", profile(placement="experts-on-cpu"))
    assert "--cpu-moe" in words
    assert words[words.index("--n-gpu-layers") + 1] == "all"


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("mmap", "mmap"),
        ("mmap+mlock", "mmap+mlock"),
        ("mlock", "mlock"),
        ("none", "none"),
        ("direct", "dio"),
    ],
)
def test_each_load_mode_has_its_word(mode: str, word: str) -> None:
    words = argv("llama.cpp", profile(load_mode=mode))
    assert words[words.index("--load-mode") + 1] == word


def test_a_built_in_template_needs_jinja_off_and_a_file_needs_it_on() -> None:
    built_in = argv("llama.cpp", profile(chat_template="chatglm4"))
    assert built_in[built_in.index("--no-jinja") :][:3] == (
        *("--no-jinja", "--chat-template", "chatglm4"),
    )
    assert "--jinja" not in built_in
    own = argv("llama.cpp", profile(), template="/x/own.jinja")
    assert own[own.index("--jinja") :][:3] == ("--jinja", "--chat-template-file", "/x/own.jinja")


def test_a_socket_takes_the_place_of_address_and_port() -> None:
    words = argv("llama.cpp", profile(listen="unix"), endpoint=Endpoint(socket="/run/x.sock"))
    assert words[words.index("--host") + 1] == "/run/x.sock"
    assert "--port" not in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runtime_repack": True}, "runtime_repack is supported by ik_llama.cpp only"),
        (
            {"attention_max_batch_mib": 512},
            "attention_max_batch_mib is supported by ik_llama.cpp only",
        ),
        ({"mla_mode": 0}, "mla_mode is supported by ik_llama.cpp only"),
        ({"graph_reuse": False}, "graph_reuse is supported by ik_llama.cpp only"),
        (
            {"split_mode_graph_scheduling": True},
            "split_mode_graph_scheduling is supported by ik_llama.cpp only",
        ),
        ({"fused_moe": False}, "fused_moe is supported by ik_llama.cpp only"),
        ({"split_mode": "graph"}, 'split_mode = "graph" is supported by ik_llama.cpp only'),
        ({"split_mode": "attn"}, 'split_mode = "attn" is supported by ik_llama.cpp only'),
        ({"split_mode": "tensor", "flash_attention": False}, "needs flash attention"),
        (
            {"split_mode": "tensor", "kv_type_k": "q5_0", "kv_type_v": "q4_1"},
            'split_mode = "tensor" cannot divide a KV cache of q4_1 and q5_0',
        ),
        ({"kv_type_k": "q6_0"}, 'kv_type_k = "q6_0" is not known to llama.cpp'),
        ({"kv_type_v": "q8_KV"}, 'kv_type_v = "q8_KV" is not known to llama.cpp'),
        ({"kv_type_k": "iq4_nl"}, 'kv_type_k = "iq4_nl" is not known to llama.cpp in CUDA'),
        ({"chat_template": "bitnet"}, 'chat_template = "bitnet" is not built into llama.cpp'),
        ({"tensor_split": [1, 1, 1]}, "tensor_split has 3 shares for 2 GPUs"),
        ({"main_gpu": 2}, "main_gpu is 2, but the instance has 2 GPUs"),
        ({"extra_flags": ["swa-full"]}, 'starts with "swa-full", which is not a flag'),
        ({"extra_flags": ["--api-key", "x"]}, "--api-key belongs to the instance's key file"),
        ({"extra_flags": ["--api_key=x"]}, "--api-key belongs to the instance's key file"),
        ({"extra_flags": ["-c", "1"]}, "-c belongs to the keys context_tokens_per_slot"),
        ({"extra_flags": ["--host", "::"]}, "--host belongs to the instance's address"),
        ({"extra_flags": ["-hf", "a/b"]}, "-hf belongs to the lock file"),
        ({"extra_flags": ["--fit-target", "1"]}, "--fit-target belongs to Corral"),
        ({"extra_flags": ["-lm", "none"]}, "-lm belongs to the key load_mode"),
    ],
)
def test_what_mainline_cannot_do_names_the_key(changes: dict[str, Any], said: str) -> None:
    assert said in refusals("llama.cpp", **changes)


def test_problems_are_told_together() -> None:
    said = refusals("llama.cpp", mla_mode=1, runtime_repack=True, extra_flags=["-t", "1"])
    assert all(word in said for word in ("mla_mode", "runtime_repack", "-t belongs"))


@pytest.mark.parametrize(
    "changes", [{"gpus": 0}, {"kv_on_gpu": False}, {"kv_type_v": "f16", "flash_attention": False}]
)
def test_types_without_a_cuda_kernel_are_fine_off_the_gpu(changes: dict[str, Any]) -> None:
    types = {"kv_type_k": "iq4_nl", "kv_type_v": "iq4_nl"}
    assert refusals("llama.cpp", **{**types, **changes}) == ""


def test_extra_flags_may_have_negative_values() -> None:
    assert refusals("llama.cpp", extra_flags=["--cache-reuse", "256", "--keep", "-1"]) == ""


def test_no_profile_can_say_a_flag_that_corral_sets_as_an_extra_flag() -> None:
    taken = engine_module("llama.cpp").flags.owners.keys()
    most = [
        profile(**{**PORTABLE, "extra_flags": []}),
        profile(placement="experts-on-cpu"),
        profile(chat_template="chatml"),
    ]
    for made in most:
        assert flags_of(argv("llama.cpp", made, template="/x/t")[1:]) <= taken


def test_flags_are_told_from_values() -> None:
    words = ["/x", "--a_b=c", "-c", "-1", "--keep", "-0.5", "x-y", "--", "-ot", "a=-b"]
    assert flags_of(words) == {"--a-b", "-c", "--keep", "-ot"}


def build(*pairs: tuple[KvType, KvType], backend: str = "cuda") -> list[str]:
    return engine_module("llama.cpp").cmake_options(
        ENGINE, backend=backend, cuda_architectures="90", kv_pairs=frozenset(pairs)
    )


def test_a_build_gets_kernels_for_the_pairs_beyond_the_default() -> None:
    plain = ["-DCMAKE_CUDA_ARCHITECTURES=90", "-DGGML_CUDA=ON", "-DGGML_NATIVE=OFF"]
    assert build(("q8_0", "q8_0"), ("f16", "f16"), ("f32", "f16")) == plain
    option = "-DGGML_CUDA_FA_QUANTS=bf16-bf16;f16-f16;f16-q8_0;q4_0-q4_0;q8_0-q4_0;q8_0-q8_0"
    assert build(("q8_0", "q4_0"), ("f32", "q8_0")) == sorted([*plain, option])
    assert build(("q8_0", "q4_0"), backend="cpu") == ["-DGGML_NATIVE=OFF"]
