"""vLLM: its command line, its key file, and what it cannot serve."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.engines import engine_module, problems, resolve_placement
from corral.engines.flag_table import Settings
from corral.plan.instance import Endpoint
from tests.unit.engine_profiles import profile, refusals

KIND = "vllm"
FAST: dict[str, Any] = {"kv_cache_mib": 512}


def argv(*, gpus: int = 0, endpoint: Endpoint | None = None, **changes: Any) -> tuple[str, ...]:
    """The command line of a profile, from the first flag on."""
    made = profile(**changes)
    found = engine_module(KIND).argv(
        "/r/bin/python",
        Settings(
            profile=made,
            model="/m/GLM",
            alias="glm",
            endpoint=endpoint or Endpoint(address="127.0.0.1", port=8001),
            key_file="/run/corral-x/vllm.yaml",
            placement=resolve_placement(made, gpus=gpus),
            chat_template_file="/g/chat-template.jinja" if made.chat_template_file else None,
        ),
    )
    start = ("/r/bin/python", "-I", "-m", "vllm.entrypoints.cli.main", "serve", "/m/GLM")
    assert found[:6] == start
    return found[6:]


def refused(*, gpus: int = 0, **changes: Any) -> str:
    """Everything that the engine cannot do for a profile, in one text."""
    return refusals(KIND, gpus, **changes)


def pairs(words: tuple[str, ...]) -> dict[str, str]:
    """Flag -> its value, "" for a switch."""
    found: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            found[word] = ""
        else:
            found[list(found)[-1]] = word
    return found


def test_the_least_that_a_profile_says_is_its_whole_command_line() -> None:
    assert argv(gpus=1) == (
        *("--served-model-name", "glm", "--host", "127.0.0.1", "--port", "8001"),
        *("--config", "/run/corral-x/vllm.yaml", "--tensor-parallel-size", "1"),
        *("--max-model-len", "2048", "--max-num-seqs", "2", "--max-num-batched-tokens", "2048"),
        *("--gpu-memory-utilization", "0.9", "--kv-cache-dtype", "auto"),
        *("--shutdown-timeout", "30", "--disable-access-log-for-endpoints", "/health,/metrics"),
        "--disable-fastapi-docs",
    )


def test_every_key_has_its_flag() -> None:
    found = pairs(
        argv(
            gpus=8,
            tensor_parallel=4,
            data_parallel=2,
            expert_parallel=True,
            gpu_memory_utilization=0.95,
            kv_cache_mib=4096,
            kv_type_k="fp8",
            kv_type_v="fp8",
            batch_tokens=32768,
            eager=True,
            prefix_caching=False,
            tool_call_parser="glm47",
            reasoning_parser="glm45",
            mtp_draft_tokens=1,
            chat_template_file="own.jinja",
            sampling={
                **{"temperature": 0.6, "top_p": 0.95, "min_p": 0},
                **{"top_k": 40, "repeat_penalty": 1.1},
            },
            extra_flags=["--numa-bind"],
        )
    )  # fmt: skip
    assert (
        found
        | {
            "--tensor-parallel-size": "4",
            "--data-parallel-size": "2",
            "--enable-expert-parallel": "",
            "--gpu-memory-utilization": "0.95",
            "--kv-cache-memory-bytes": str(4 * 1024**3),
            "--kv-cache-dtype": "fp8",
            "--max-num-batched-tokens": "32768",
            "--enforce-eager": "",
            "--no-enable-prefix-caching": "",
            "--tool-call-parser": "glm47",
            "--enable-auto-tool-choice": "",
            "--reasoning-parser": "glm45",
            "--chat-template": "/g/chat-template.jinja",
            "--numa-bind": "",
        }
        == found
    )
    assert json.loads(found["--speculative-config"]) == {
        "method": "mtp", "num_speculative_tokens": 1,
    }  # fmt: skip
    assert json.loads(found["--override-generation-config"]) == {
        "temperature": 0.6, "top_p": 0.95, "min_p": 0, "top_k": 40, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert "--enable-prefix-caching" in argv(prefix_caching=True)


def test_a_socket_is_all_that_it_listens_on() -> None:
    found = pairs(argv(endpoint=Endpoint(socket="/run/corral-x/vllm.sock")))
    assert found["--uds"] == "/run/corral-x/vllm.sock"
    assert not {"--host", "--port"} & found.keys()


def test_without_gpus_cores_are_a_variable_and_no_share_of_memory_is_named() -> None:
    made = profile(**FAST, tensor_parallel=2, cpu_cores=["0-1", "2,3"])
    variables = engine_module(KIND).variables(made)
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "0-1|2,3"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in engine_module(KIND).variables(profile())
    assert "--gpu-memory-utilization" not in argv(**FAST)


def test_what_it_can_serve_is_not_refused() -> None:
    assert refused(**FAST) == ""
    assert refused(gpus=4, tensor_parallel=4, kv_type_k="fp8", kv_type_v="fp8") == ""
    assert refused(gpus=4, data_parallel=4, expert_parallel=True) == ""
    assert refused(gpus=1, tool_call_parser="glm45", reasoning_parser="glm45") == ""
    assert refused(**FAST, tensor_parallel=2, cpu_cores=["0", "1"], mtp_draft_tokens=1) == ""


@pytest.mark.parametrize(
    ("gpus", "changes", "said"),
    [
        (8, {"tensor_parallel": 4}, "4 x data_parallel 1 uses 4 GPUs, but the instance has 8"),
        (2, {"tensor_parallel": 2, "data_parallel": 2}, 'product is 2, or name 4 in "gpus"'),
        (0, {**FAST, "data_parallel": 2}, "without GPUs: vLLM's engine ends at its first request"),
        (0, {**FAST, "tensor_parallel": 2}, "needs the cores of each rank"),
        (0, {**FAST, "cpu_cores": ["0", "1"]}, "cpu_cores has 2 lists for tensor_parallel 1"),
        (1, {"cpu_cores": ["0"]}, "cpu_cores has no effect on GPUs"),
        (0, {}, "kv_cache_mib is missing"),
        (0, {**FAST, "gpu_memory_utilization": 0.5}, "has no effect without GPUs"),
        (1, {"expert_parallel": True}, "expert_parallel has no effect"),
        (1, {"kv_type_k": "fp8"}, "one type for both"),
        (1, {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}, 'kv_type_v = "q8_0" is not known to vLLM'),
        (1, {"slots": 4096}, "batch_tokens 2048 is less than one token for 4096 slots"),
        (1, {"tool_call_parser": "glm46"}, 'no parser of vLLM (did you mean "glm4'),
        (1, {"reasoning_parser": "none"}, 'reasoning_parser = "none" is no parser'),
        (1, {"placement": "auto"}, 'placement = "auto" is not known to vLLM'),
        (1, {"placement": "experts-on-cpu"}, 'set placement = "gpu"'),
        (1, {"threads": 4}, "threads is supported by llama.cpp and ik_llama.cpp only"),
        (1, {"flash_attention": False}, "flash_attention is supported by"),
        (1, {"load_mode": "mlock"}, "load_mode is supported by"),
        (1, {"prompt_cache_mib": 0}, "prompt_cache_mib is supported by"),
        (1, {"ubatch_tokens": 256}, "ubatch_tokens is supported by"),
        (1, {"metrics": False}, "metrics is supported by"),
        (1, {"gpu_layers": 4}, "gpu_layers is supported by"),
        (1, {"kv_on_gpu": False}, "kv_on_gpu is supported by"),
        (1, {"chat_template": "chatml"}, "chat_template is supported by"),
    ],
)
def test_what_it_cannot_serve_is_refused(gpus: int, changes: dict[str, Any], said: str) -> None:
    assert said in refused(gpus=gpus, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"tensor_parallel": 2}, {"eager": True}, {"gpu_memory_utilization": 0.5},
     {"tool_call_parser": "glm45"}, {"cpu_cores": ["0"]}],
)  # fmt: skip
def test_its_keys_are_refused_for_other_engines(changes: dict[str, Any]) -> None:
    (key,) = changes
    what, step = problems("llama.cpp", profile(**changes), gpus=2)[0]
    assert what == f"{key} is supported by vllm only"
    assert step == f'remove {key} or choose engine = "vllm"'


@pytest.mark.parametrize("cores", ["", "a", "0-", "0;1", "0|1", "-1"])
def test_a_list_of_cores_is_one(cores: str) -> None:
    with pytest.raises(ValueError, match="is not a list of cores"):
        profile(cpu_cores=[cores])


def made_config(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """The command that makes the server's key file, run on a key file."""
    source = folder / "api-keys"
    source.write_text(text)
    config = engine_module(KIND).key_config(
        program=sys.executable, key_file=str(source), folder=str(folder)
    )
    assert config is not None
    assert config.path == str(folder / "vllm.yaml")
    return subprocess.run(config.command, capture_output=True, text=True, check=False)


def test_its_key_file_has_every_key_and_is_read_by_its_user_alone(tmp_path: Path) -> None:
    keys = ["a" * 20, '0123456789"01234567890', "yes: [no] #" + "x" * 10, "00000000000000000001"]
    done = made_config(tmp_path, "# comment\n" + "\n\n".join(keys) + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path = tmp_path / "vllm.yaml"
    assert json.loads(path.read_text()) == {"api-key": keys}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no key in it. Next: deploy"),
        ("# only a comment\n\n", "there is no key in it. Next: deploy"),
        (f"{'a' * 20}\n-{'b' * 20}\n", "takes no key that begins with a dash. Next: replace"),
    ],
)
def test_without_keys_that_it_can_take_it_does_not_start(
    tmp_path: Path, text: str, said: str
) -> None:
    done = made_config(tmp_path, text)
    assert done.returncode == 1
    assert said in done.stderr
    assert "b" * 20 not in done.stderr
    assert not (tmp_path / "vllm.yaml").exists()


@pytest.mark.parametrize("version", ["0.29.0", "0.33.0", "0.32.0+cpu", "1.0"])
def test_a_version_that_shows_no_key_may_serve(version: str) -> None:
    assert engine_module(KIND).release_problem({"vllm": version, "torch": "2.14.0"}) is None


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"vllm": "0.24.0"}, "vLLM 0.24.0 writes API keys into its log; 0.29 is the oldest"),
        ({"vllm": "0.28.1"}, "vLLM 0.28.1 writes API keys into its log"),
        ({"torch": "2.14.0"}, "its requirements have no vllm"),
    ],
)
def test_a_version_that_shows_keys_must_not_serve(pins: dict[str, str], said: str) -> None:
    assert said in str(engine_module(KIND).release_problem(pins))
