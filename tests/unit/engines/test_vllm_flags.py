"""Flags of vLLM that Corral decides or refuses, in every spelling that vLLM's parser takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from corral.engines import engine_module
from corral.engines.flags import unknown_flags
from corral.engines.vllm.opening_flags import OPENINGS, REASONS
from tests.samples import ROOT
from tests.unit.engine_profiles import profile, refusals
from tests.unit.engines.test_vllm import argv

# `vllm serve --help=all` of vLLM 0.32, its flags alone.
SERVER = frozenset((ROOT / "tests" / "data" / "vllm" / "flags-0.32.txt").read_text().split())
TABLE = engine_module("vllm").flags
DECIDED = {**dict.fromkeys(TABLE.owners, "belongs to"), **dict.fromkeys(REASONS, "is refused")}
FLAGS = sorted(name for name in DECIDED if name.startswith("-"))
NAMED = sorted(name for name in REASONS if not name.startswith("-"))


def refusal(*words: str) -> str:
    return refusals("vllm", gpus=1, extra_flags=["--numa-bind", *words])


def shortest(flag: str, flags: Collection[str]) -> str | None:
    """The shortest beginning of a flag that the server takes for it alone."""
    starts = (flag[:length] for length in range(4, len(flag)))
    return next((s for s in starts if sum(one.startswith(s) for one in flags) == 1), None)


def test_every_name_is_one_that_the_server_knows() -> None:
    assert set(FLAGS) <= SERVER


@pytest.mark.parametrize("flag", FLAGS)
def test_each_spelling_is_refused(flag: str) -> None:
    said = f"extra_flags: {flag} {DECIDED[flag] if flag in TABLE.owners else 'is refused'}"
    assert said in refusal(flag, "x")
    assert said in refusal(f"{flag}=x")
    assert f"remove {flag} from extra_flags" in refusal(flag)
    assert f"extra_flags: {flag}.key ({flag}) " in refusal(f"{flag}.key", "x")
    assert f"extra_flags: {flag}.key+ ({flag}) " in refusal(f"{flag}.key+=x")
    if flag.startswith("--"):
        assert said in refusal(f"--{flag[2:].replace('-', '_')}")


@pytest.mark.parametrize("flag", FLAGS)
def test_a_beginning_that_the_server_takes_for_it_is_refused(flag: str) -> None:
    if start := shortest(flag, SERVER) if flag.startswith("--") else None:
        assert f"extra_flags: {start} (" in refusal(start, "x")
        assert f"remove {start} from extra_flags" in refusal(f"{start}=x")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("-t", "-tp"), ("-n4", "-n"), ("-tp=4", "-tp"), ("--api-k", "--api-key"), ("--tru", "--tr")],
)  # fmt: skip
def test_a_short_one_is_refused(given: str, meant: str) -> None:
    assert meant in refusal(given, "4")
    assert "remove -" in refusal(given, "4")


@pytest.mark.parametrize("name", NAMED)
def test_a_variable_is_refused(name: str) -> None:
    assert f"extra_flags: {name} is refused: it {REASONS[name]}" in refusal(f"{name}=1")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--api-key", "belongs to the instance's key file; a flag would show a secret"),
        ("--uds", "belongs to the instance's address and port"),
        ("-tp", "belongs to the key tensor_parallel"),
        ("--middleware", "runs Python code that is no part of the release"),
        ("--trust-remote-code", "runs Python code"),
        ("--lora-modules", "loads files that the lock file does not know"),
        ("--root-path", "changes which paths need a key"),
        ("--allowed-origins", "web pages of other origins"),
        ("--allowed-local-media-path", "read files from the server's host"),
        ("--enable-log-requests", "writes prompts, answers or keys to the journal"),
        ("VLLM_SERVER_DEV_MODE=1", "opens routes that change the server"),
        ("VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "the lock file does not know"),
        ("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH=1", "so that nothing restarts it"),
        ("VLLM_API_KEY=x", "shows a secret"),
    ],
)
def test_a_refusal_says_what_it_opens(flag: str, said: str) -> None:
    assert said in refusal(flag)


def test_what_opens_nothing_may_be_said() -> None:
    harmless = (
        "--cpu-offload-gb",
        "4",
        "--compilation-config.mode",
        "3",
        "-O3",
        "--dtype=bfloat16",
    )
    assert refusal(*harmless) == ""
    for flag in SERVER - DECIDED.keys():
        assert refusal(flag, "x") == "", flag


def test_a_name_has_one_reason() -> None:
    names = Counter(name for opening in OPENINGS for name in opening.names)
    assert [name for name, count in names.items() if count > 1] == []
    assert not TABLE.owners.keys() & REASONS.keys()


def test_corral_itself_says_only_what_the_server_knows() -> None:
    made = argv(gpus=1, extra_flags=["--compilation-config.mode", "3"])
    assert unknown_flags(made, SERVER) == []
    assert unknown_flags(["--compilation.mode", "--ubatch_size", "1"], SERVER) == [
        "--compilation.mode"
    ]
    assert profile().extra_flags == ()
