"""Environment files: what they say reaches a program to the letter, whatever the words."""

from __future__ import annotations

import re
from pathlib import Path

from corral.engines import engine_module
from corral.export.env import split
from corral.export.subject import Subject
from tests.samples import CHAT, GPU, SOCKET
from tests.unit.engine_profiles import PORTABLE, argv, profile
from tests.unit.exports import (
    ALL_NASTY,
    EXTRA,
    TWO_GPUS,
    Started,
    exported,
    started,
    subject,
    telling_program,
)


def run_env(about: Subject, folder: Path) -> Started:
    """Start what an environment file says, by the line that it gives for a shell."""
    text, path = exported("env", about), folder / "server.env"
    path.write_text(text)
    (line,) = re.findall(r"^# shell: +(.*)$", text, re.MULTILINE)
    line = line.replace("FILE", str(path))
    line = line.replace(about.instance.argv[0], str(telling_program(folder)))
    return started("bash", "-c", line)


def test_an_environment_file_says_the_same_to_a_shell(tmp_path: Path) -> None:
    about = subject(TWO_GPUS, data={"gpus": GPU}, alias=ALL_NASTY, extra_flags=EXTRA)
    done = run_env(about, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.argv[1:] == list(EXTRA)
    for name, value in {
        "LLAMA_ARG_ALIAS": ALL_NASTY,
        "LLAMA_ARG_MODEL": about.instance.shards[0],
        "LLAMA_ARG_API_KEY_FILE": "/etc/corral/keys/chat",
        "LLAMA_ARG_CTX_SIZE": "4096",
        "LLAMA_ARG_UI": "0",
        "GGML_NO_BACKTRACE": "1",
        "CUDA_VISIBLE_DEVICES": "1,0",
    }.items():
        assert done.environment[name] == value


def test_an_environment_file_quotes_only_what_needs_it() -> None:
    lines = exported("env", subject(CHAT)).splitlines()
    quoted = [line for line in lines if not line.startswith("#") and '"' in line]
    assert quoted == ['CORRAL_EXTRA_ARGS=""']


def test_mainline_has_variables_for_all_but_a_few_flags() -> None:
    made = profile(**{**PORTABLE, "cpu_moe_layers": None})
    variables, words = split(list(argv("llama.cpp", made))[1:], engine_module("llama.cpp").flags)
    assert words == ["--threads-batch", "12", "--check-tensors"]
    assert variables["LLAMA_ARG_OVERRIDE_TENSOR"] == "exps=CPU,attn=CPU"
    assert variables["LLAMA_ARG_CONT_BATCHING"] == "0"
    assert variables["LLAMA_ARG_KV_OFFLOAD"] == "0"
    assert variables["LLAMA_ARG_THINK_BUDGET"] == "0"


def test_rules_whose_order_counts_stay_in_their_order() -> None:
    made = profile(**PORTABLE)
    variables, words = split(list(argv("llama.cpp", made))[1:], engine_module("llama.cpp").flags)
    assert words[:4] == ["--n-cpu-moe", "5", "--override-tensor", "exps=CPU,attn=CPU"]
    assert not {"LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_OVERRIDE_TENSOR"} & variables.keys()


def test_iks_switches_are_ones_and_its_flash_attention_is_a_word() -> None:
    made = profile(**PORTABLE)
    variables, words = split(
        list(argv("ik_llama.cpp", made))[1:], engine_module("ik_llama.cpp").flags
    )
    assert variables["LLAMA_ARG_MLOCK"] == "1"
    assert variables["LLAMA_ARG_ENDPOINT_METRICS"] == "1"
    assert variables["LLAMA_ARG_CONT_BATCHING"] == "0"
    assert variables["LLAMA_ARG_MODEL_ALIAS"] == "small"
    assert words[:4] == ["--api-key-file", "/x/keys", "--flash-attn", "on"]
    assert words[-3:] == ["--webui", "none", "--check-tensors"]


def test_an_environment_file_of_ik_warns_that_it_wins() -> None:
    warning = "# A variable overrides the same flag on the command line."
    assert warning in exported("env", subject(CHAT, "ik_llama.cpp")).splitlines()
    assert warning not in exported("env", subject(CHAT)).splitlines()


def test_an_environment_file_of_a_socket_says_what_its_folder_needs() -> None:
    assert "RuntimeDirectory=corral-private" in exported("env", subject(SOCKET))
    assert "RuntimeDirectory" not in exported("env", subject(CHAT))
