"""ik_llama.cpp: exact command lines, what it cannot do, its build."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Engine
from corral.catalog.profile import KvType
from corral.engines import engine_module
from corral.engines.flag_table import flags_of
from tests.unit.engine_profiles import PORTABLE, argv, profile, refusals

OWN: dict[str, Any] = {
    "runtime_repack": True,
    "load_mode": "mlock",
    "attention_max_batch_mib": 512,
    "mla_mode": 3,
    "graph_reuse": True,
    "split_mode": "graph",
    "split_mode_graph_scheduling": True,
    "fused_moe": False,
}


def test_every_portable_key_becomes_iks_flags() -> None:
    assert argv("ik_llama.cpp", profile(**PORTABLE)) == (
        "/x/llama-server",
        *("--model", "/x/model.gguf", "--alias", "small"),
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--api-key-file", "/x/keys"),
        *("--ctx-size", "4096", "--parallel", "2"),
        *("--cache-type-k", "q8_0", "--cache-type-v", "q8_0"),
        *("--flash-attn", "on"),
        *("--batch-size", "2048", "--ubatch-size", "512"),
        *("--rope-scaling", "yarn", "--rope-scale", "2.5", "--yarn-orig-ctx", "4096"),
        "--no-cont-batching",
        *("--n-gpu-layers", "40"),
        *("--n-cpu-moe", "5", "--override-tensor", "exps=CPU,attn=CPU"),
        *("--split-mode", "layer", "--tensor-split", "3,1.5", "--main-gpu", "1"),
        "--no-kv-offload",
        *("--threads", "6", "--threads-batch", "12"),
        "--mlock",
        *("--cache-ram", "8192"),
        *("--jinja", "--reasoning-format", "deepseek-legacy", "--reasoning-budget", "0"),
        *("--multi-token-prediction", "--draft-max", "2"),
        *("--temp", "0.6", "--top-p", "0.95", "--min-p", "0.01", "--top-k", "40"),
        *("--repeat-penalty", "1.1"),
        "--metrics",
        *("--webui", "none"),
        "--check-tensors",
    )


def test_its_own_keys_become_its_own_flags() -> None:
    words = argv("ik_llama.cpp", profile(**OWN))
    own = words[words.index("--mlock") : words.index("--jinja")]
    assert own == (
        *("--mlock", "--no-mmap"),
        *("--cache-ram", "8192"),
        "--run-time-repack",
        *("--attention-max-batch", "512", "--mla-use", "3"),
        *("--graph-reuse", "--split-mode-graph-scheduling", "--no-fused-moe"),
    )
    assert words[words.index("--split-mode") + 1] == "graph"


def test_what_is_possible_has_no_problem() -> None:
    assert refusals("ik_llama.cpp", **PORTABLE) == ""
    assert refusals("ik_llama.cpp", **OWN) == ""


def test_all_layers_are_a_number() -> None:
    words = argv("ik_llama.cpp", profile())
    assert words[words.index("--n-gpu-layers") + 1] == "999"
    words = argv("ik_llama.cpp", profile(), gpus=0)
    assert words[words.index("--n-gpu-layers") + 1] == "0"


def test_flash_attention_always_has_a_value() -> None:
    for on, word in ((True, "on"), (False, "off")):
        words = argv("ik_llama.cpp", profile(flash_attention=on))
        assert words[words.index("--flash-attn") + 1] == word


@pytest.mark.parametrize("key", ["graph_reuse", "fused_moe", "split_mode_graph_scheduling"])
def test_what_is_not_said_is_left_to_the_engine(key: str) -> None:
    words = set(argv("ik_llama.cpp", profile()))
    off = set(argv("ik_llama.cpp", profile(**{key: False}))) - words
    on = set(argv("ik_llama.cpp", profile(**{key: True}))) - words
    flags = {
        "graph_reuse": ({"--no-graph-reuse"}, {"--graph-reuse"}),
        "fused_moe": ({"--no-fused-moe"}, set()),
        "split_mode_graph_scheduling": (set(), {"--split-mode-graph-scheduling"}),
    }
    assert (off, on) == flags[key]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("mmap", set()),
        ("mmap+mlock", {"--mlock"}),
        ("mlock", {"--mlock", "--no-mmap"}),
        ("none", {"--no-mmap"}),
    ],
)
def test_each_load_mode_has_its_flags(mode: str, words: set[str]) -> None:
    found = argv("ik_llama.cpp", profile(load_mode=mode))
    assert {"--mlock", "--no-mmap"} & set(found) == words


def test_a_built_in_template_leaves_jinja_off() -> None:
    words = argv("ik_llama.cpp", profile(chat_template="chatglm4"))
    assert words[words.index("--chat-template") + 1] == "chatglm4"
    assert "--jinja" not in words
    assert "--no-jinja" not in words


def test_no_flag_of_mainline_alone_is_used() -> None:
    foreign = {"--fit", "--no-ui", "--offline", "--load-mode", "--spec-type", "--no-jinja"}
    assert not foreign & set(argv("ik_llama.cpp", profile(**PORTABLE)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"listen": "unix"}, "ik_llama.cpp has no unix sockets"),
        ({"split_mode": "row"}, 'split_mode = "row" is supported by llama.cpp only'),
        ({"split_mode": "tensor"}, 'split_mode = "tensor" is supported by llama.cpp only'),
        ({"load_mode": "direct"}, 'load_mode = "direct" is supported by llama.cpp only'),
        ({"reasoning_budget": 100}, "only 0 and -1"),
        ({"chat_template": "zephyr2"}, "is not built into ik_llama.cpp"),
        ({"chat_template": "solar-open"}, "is not built into ik_llama.cpp"),
        ({"kv_type_k": "bf16", "kv_type_v": "bf16"}, "no flash attention kernel in CUDA"),
        ({"kv_type_k": "q8_KV"}, "no flash attention kernel in CUDA"),
        ({"kv_type_k": "q5_1", "gpus": 0}, "no flash attention kernel for layers on the CPU"),
        ({"kv_type_v": "q8_KV", "gpus": 0}, "no flash attention kernel for layers on the CPU"),
        ({"kv_type_v": "bf16", "kv_on_gpu": False}, "for layers on the CPU"),
        ({"kv_type_k": "q5_1", "gpu_layers": 9}, "for layers on the CPU"),
        ({"kv_type_v": "f32", "flash_attention": False}, 'kv_type_v = "f32" is not known'),
        ({"runtime_repack": True}, 'runtime_repack does not work with load_mode = "mmap"'),
        ({"split_mode_graph_scheduling": True}, 'needs split_mode = "graph"'),
        ({"tensor_split": [1, 1, 1]}, "tensor_split has 3 shares for 2 GPUs"),
        ({"extra_flags": ["--no-mmap"]}, "--no-mmap belongs to the key load_mode"),
        ({"extra_flags": ["-rtr"]}, "-rtr belongs to the key runtime_repack"),
        ({"extra_flags": ["-no-fa"]}, "-no-fa belongs to the key flash_attention"),
        ({"extra_flags": ["--draft-max", "1"]}, "--draft-max belongs to the key mtp_draft_tokens"),
        ({"extra_flags": ["--webui", "auto"]}, "--webui belongs to Corral"),
        ({"extra_flags": ["--api-key=x"]}, "--api-key belongs to the instance's key file"),
    ],
)
def test_what_ik_cannot_do_names_the_key(changes: dict[str, Any], said: str) -> None:
    assert said in refusals("ik_llama.cpp", **changes)


@pytest.mark.parametrize("mode", ["graph", "attn"])
def test_splitting_a_layer_needs_two_gpus(mode: str) -> None:
    said = refusals("ik_llama.cpp", split_mode=mode, gpus=1)
    assert f'split_mode = "{mode}" needs two GPUs or more, the instance has 1' in said
    assert refusals("ik_llama.cpp", split_mode=mode, gpus=0) == ""


@pytest.mark.parametrize("changes", [{"gpus": 0}, {"kv_on_gpu": False}])
def test_types_without_a_cuda_kernel_are_fine_off_the_gpu(changes: dict[str, Any]) -> None:
    assert refusals("ik_llama.cpp", kv_type_k="q8_KV", kv_type_v="q6_0", **changes) == ""


@pytest.mark.parametrize("kv_type", ["f32", "bf16", "q5_1"])
def test_without_flash_attention_keys_are_of_any_type(kv_type: str) -> None:
    assert refusals("ik_llama.cpp", kv_type_k=kv_type, flash_attention=False) == ""


def test_types_without_a_cpu_kernel_are_fine_on_the_gpu() -> None:
    assert refusals("ik_llama.cpp", kv_type_k="q5_1", kv_type_v="q5_0") == ""
    assert refusals("ik_llama.cpp", kv_type_k="q6_0", kv_type_v="q6_0") == ""


def test_no_profile_can_say_a_flag_that_corral_sets_as_an_extra_flag() -> None:
    taken = engine_module("ik_llama.cpp").flags.owners.keys()
    most = [
        profile(**{**PORTABLE, "extra_flags": []}),
        profile(**OWN),
        profile(graph_reuse=False, placement="experts-on-cpu"),
        profile(chat_template="chatml"),
    ]
    for made in most:
        assert flags_of(argv("ik_llama.cpp", made, template="/x/t")[1:]) <= taken


def test_routes_that_it_leaves_open_are_not_asked_to_be_closed() -> None:
    routes = engine_module("ik_llama.cpp").keyed_routes(profile())
    assert not any(path.endswith("/models") for path in routes)
    assert {"GET /props", "POST /v1/chat/completions", "GET /metrics"} <= set(routes)
    closed = engine_module("ik_llama.cpp").keyed_routes(profile(metrics=False))
    assert "GET /metrics" not in closed
    assert "GET /v1/models" in engine_module("llama.cpp").keyed_routes(profile())


@pytest.mark.parametrize(
    ("pairs", "all_kernels"),
    [
        ([("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q8_0", "iq4_nl")], False),
        ([("q6_0", "q5_0"), ("q8_0", "q6_0"), ("iq4_nl", "iq4_nl")], False),
        ([("q8_0", "q4_0")], True),
        ([("f16", "f16"), ("q6_0", "q6_0")], True),
    ],
)
def test_a_pair_beyond_the_default_gets_every_kernel(
    pairs: list[tuple[KvType, KvType]], all_kernels: bool
) -> None:
    engine = Engine(
        kind="ik_llama.cpp",
        repository="https://git.example.com/x",
        commit="c0" * 20,
        cmake_options_cuda={"GGML_CUDA": "ON"},
        targets=("llama-server",),
    )

    def build(backend: str) -> list[str]:
        return engine_module("ik_llama.cpp").cmake_options(
            engine, backend=backend, cuda_architectures="75", kv_pairs=frozenset(pairs)
        )

    extra = ["-DGGML_CUDA_FA_ALL_QUANTS=ON"] if all_kernels else []
    assert build("cuda") == ["-DCMAKE_CUDA_ARCHITECTURES=75", "-DGGML_CUDA=ON", *extra]
    assert build("cpu") == []
