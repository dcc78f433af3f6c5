"""vLLM on a host: its version, flags and GPUs, as its own programs report them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

vllm, tools = helper_module("engines.vllm"), helper_module("system.commands")
ENGINE = vllm.Vllm()
PROGRAM = Path("/opt/corral/engines/vllm/key/bin/python")
LOCKED = "torch==2.13.0 \\\n    --hash=sha256:aa\nvllm==0.32.0+cpu\n"
RELEASE = {"artifact": {"requirements": LOCKED}}
# Of vLLM 0.32.0: `vllm serve --help=all`, shortened.
HELP = """Triton is installed, but doesn't include CPU backend. Disabling Triton.
usage: vllm serve [model_tag] [options]

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run. Defaults to
                        --data-parallel-size if not specified. (default: None)
  --enable-log-requests, --no-enable-log-requests
                        - INFO: Request ID
  --gdn-prefill-backend {flashinfer,triton,cutedsl,aiter_flydsl}
  -h, --help            show this help message and exit

   --json-arg '{"key1": "value1", "key2": {"key3": "value2"}}'
"""


def says(text: str, code: int | None = 0) -> Callable[[list[str]], tuple[str, int | None]]:
    return lambda _: (text, code)


def test_the_version_is_the_locked_one() -> None:
    noise = "Triton is installed, but doesn't include CPU backend.\n0.32.0+cpu\n"
    ENGINE.prove_version(PROGRAM, RELEASE, says(noise))


@pytest.mark.parametrize(
    ("text", "code"), [("0.32.0\n", 0), ("0.32.0+cpu\n", 1), ("", 0), ("0.32.0+cpu", None)]
)
def test_another_version_is_refused_with_what_it_said(text: str, code: int | None) -> None:
    with pytest.raises(tools.HostError, match=r"not 0\.32\.0\+cpu(?s:.*)Next: .*corral lock"):
        ENGINE.prove_version(PROGRAM, RELEASE, says(text, code))


def test_flags_are_those_of_the_help_and_of_the_interpreter() -> None:
    assert ENGINE.flags(PROGRAM, says(HELP)) == [
        *("--api-server-count", "--enable-log-requests", "--gdn-prefill-backend", "--help"),
        *("--no-enable-log-requests", "-I", "-asc", "-h", "-m"),
    ]
    with pytest.raises(tools.HostError, match="lists no flags"):
        ENGINE.flags(PROGRAM, says("Traceback", 1))


def test_gpus_are_listed_after_the_extensions_were_imported() -> None:
    said = "WARNING something\nCUDA0: NVIDIA H200\nCUDA1: NVIDIA H200\n"
    assert ENGINE.devices(PROGRAM, says(said), "") == ["CUDA0: NVIDIA H200", "CUDA1: NVIDIA H200"]
    broken = "ImportError: libcudart.so.13: cannot open shared object file"
    with pytest.raises(tools.HostError, match=r"cannot be imported(?s:.*)libcudart(?s:.*)Next: "):
        ENGINE.devices(PROGRAM, says(broken, 1), "")


def test_keys_are_a_list_in_yaml_and_never_none() -> None:
    assert json.loads(ENGINE.key_document(["one", "two"])) == {"api-key": ["one", "two"]}
    with pytest.raises(tools.HostError, match="without authentication"):
        ENGINE.key_document([])


def test_a_smoke_run_has_its_key_in_a_file() -> None:
    endpoint: dict[str, Any] = {"address": "127.0.0.1", "port": 8001, "socket": None}
    argv = ENGINE.smoke_arguments(PROGRAM, Path("/m"), Path("/k"), endpoint, gpu=True)
    assert argv[:6] == [str(PROGRAM), "-I", "-m", "vllm.entrypoints.cli.main", "serve", "/m"]
    assert argv[argv.index("--config") + 1] == "/k"
    assert "--api-key" not in argv
    assert vllm.SMOKE_KV_BYTES < 2**30
