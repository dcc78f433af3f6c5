"""Flags that open a server or its host to more than Corral serves."""

from __future__ import annotations

from collections import Counter

import pytest

from corral.catalog.entries import EngineKind
from corral.engines import engine_module
from corral.engines.llama.opening_flags import OPENINGS, REASONS
from tests.unit.engine_profiles import argv, profile, refusals

KINDS: tuple[EngineKind, ...] = ("llama.cpp", "ik_llama.cpp")
FLAGS = sorted(name for name in REASONS if name.startswith("-"))
NAMED = sorted(name for name in REASONS if not name.startswith("-"))


def refusal(kind: EngineKind, *words: str) -> str:
    return refusals(kind, extra_flags=["--check-tensors", *words])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", FLAGS)
def test_each_spelling_is_refused_for_both_engines(kind: EngineKind, flag: str) -> None:
    said = f"extra_flags: {flag} "
    assert said in refusal(kind, flag, "x")
    assert said in refusal(kind, f"{flag}=x")
    if flag.startswith("--"):
        assert said in refusal(kind, f"--{flag[2:].replace('-', '_')}")
    assert f"remove {flag} from extra_flags" in refusal(kind, flag)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMED)
def test_a_variable_of_a_server_is_refused_as_its_flag(kind: EngineKind, name: str) -> None:
    assert f"extra_flags: {name} is refused: it {REASONS[name]}" in refusal(kind, f"{name}=x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--tools", "lets requests run programs"),
        ("-ag", "lets requests run programs"),
        ("--no-webui-mcp-proxy", "lets requests run programs"),
        ("--mcp-servers-json", "reach other servers"),
        ("--models-dir", "makes the server a router"),
        ("--media-path", "reads files of the host"),
        ("--log-file", "to files of the host"),
        ("--slot-save-path", "to files of the host"),
        ("-v", "to the journal"),
        ("--cors-origins", "web pages of other origins"),
        ("--props", "for all clients"),
        ("--control-vector", "the lock file does not know"),
        ("--fim-qwen-7b-default", "downloads files"),
        ("--kv-unified", "changes memory, or the context of a slot, that is counted from keys"),
        ("-ctkd", "changes memory"),
    ],
)
def test_a_refusal_says_what_the_flag_opens(kind: EngineKind, flag: str, said: str) -> None:
    told_so = refusal(kind, flag, "x")
    assert f"{flag} is refused: it " in told_so
    assert said in told_so


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "flag", ["--host", "--path", "--ssl-key-file", "--api-key", "--rpc", "--hf-repo", "-mu"]
)
def test_a_flag_that_another_key_decides_names_that_key(kind: EngineKind, flag: str) -> None:
    assert f"extra_flags: {flag} belongs to " in refusal(kind, flag, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_what_opens_nothing_may_be_said(kind: EngineKind) -> None:
    harmless = ("--cache-reuse", "256", "--keep", "-1", "--override-kv", "a=b")
    assert refusal(kind, *harmless) == ""


def test_a_name_has_one_reason() -> None:
    names = Counter(name for opening in OPENINGS for name in (*opening.flags, *opening.variables))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_corral_itself_opens_only_what_it_decides(kind: EngineKind) -> None:
    decided = {"--host", "--port", "--api-key-file"}
    assert set(argv(kind, profile())) & REASONS.keys() <= decided
    known = engine_module(kind).flags.variables.valued
    assert {flag for flag in known if flag in REASONS} <= decided
