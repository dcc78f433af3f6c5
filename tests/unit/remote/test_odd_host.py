"""A host that answers oddly is one row or line of an error; the others' answers are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.host import answers
from corral.host.reading import UnreadableError, read_answer
from corral.remote import lease
from corral.remote.client import installed_helper
from corral.remote.unreached import UnreachedError
from corral.rollout import locks
from corral.rollout.locks import HostLocks
from corral.rollout.staging import look
from corral.store.api_keys import KeyFile
from lab.odd_host import Answer, OddHosts
from tests.samples import CHAT, ROOT, bare, host, plan
from tests.unit.cli.test_cli import Corral, corral
from tests.unit.odd_fleet import COMMANDS, OddFleet, give_up_after, odd_fleet, odd_hosts

pytestmark = pytest.mark.slow

__all__ = ["corral"]

MIB = 1024**2
FOREVER = 3600
ODD: dict[str, Answer] = {
    "not UTF-8": Answer(b"\xff\xfe\x80[]"),
    "nothing": Answer(b""),
    "null": Answer(b"null\n"),
    "a number": Answer(b"7\n"),
    "a list": Answer(b"[[]]\n"),
    "a wrong shape": Answer(b'{"surprise": {"a": [1, "x"]}}\n'),
    "nested deeply": Answer(b"[" * 100_000),
    "nested deeply and whole": Answer(b"[" * 50_000 + b"]" * 50_000),
    "too much": Answer(b"x" * MIB, times=600),
    "too much, as errors": Answer(err=b"x" * 2 * MIB, code=1),
    "silence": Answer(delay_seconds=FOREVER),
    "silence after half of it": Answer(b'{"a":', stays_seconds=FOREVER),
    "no number": Answer(b'{"servers": NaN}'),
    "a number without end": Answer(b"1" * 10_000),
    "an error of bytes": Answer(err=b"\xff\xfe", code=1),
    "a traceback": Answer(err=b"Traceback (most recent call last):\nKeyError: 'x'\n", code=1),
    "refused": Answer(err=b"ssh: connect to host odd: refused", code=255),
}


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddHosts:
    return odd_hosts(tmp_path / "odd", monkeypatch)


@pytest.fixture
def fleet(corral: Corral, hosts: OddHosts) -> OddFleet:
    return odd_fleet(corral, hosts)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("odd", ["not UTF-8", "null", "a wrong shape", "nested deeply", "refused"])
def test_one_odd_host_does_not_hide_the_others(
    fleet: OddFleet, words: tuple[str, ...], odd: str
) -> None:
    fleet.hosts.says("odd", ODD[odd])
    said = fleet(*words)
    assert said.code == 1
    assert "well" in said.out
    assert "odd" in said.out + said.err
    if words[0] not in ("status", "gateway"):  # which show what is wrong in few words
        assert said.out.count("odd") + said.err.count("odd: ") >= 1
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("odd", ODD)
def test_whatever_a_host_answers_is_an_error_of_that_host(
    fleet: OddFleet, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if odd.startswith("silence"):
        give_up_after(8, monkeypatch)
    fleet.hosts.says("odd", ODD[odd])
    said = fleet("status", "--json")
    rows = json.loads(said.out)
    assert said.code == 1
    assert rows["odd"].startswith("odd: ")
    assert "\n  Next: " in rows["odd"]
    assert set(rows["well"]["instances"]) == {"chat"}


def test_a_state_without_a_planned_instance_is_a_row(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", Answer(b'{"instances": {}}'))
    said = fleet("status")
    assert said.code == 1
    assert "not deployed on the host" in said.out
    assert "well" in said.out


def test_an_odd_host_of_fit_is_one_message(fleet: OddFleet) -> None:
    fleet.hosts.says("odd", ODD["null"])
    said = fleet("fit", "tiny-glm-moe", "--host", "odd")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("odd: its answer is not readable")


def test_the_looks_of_a_rollout_go_on_past_an_odd_host(hosts: OddHosts) -> None:
    one, two = host(CHAT, name="odd"), host(CHAT, name="well")
    made = plan(CHAT)
    hosts.says("odd", ODD["null"])
    hosts.says("well", Answer(bare(made).model_dump_json().encode()))
    key = KeyFile(path="k", text="k\n")
    found = look([(one, made), (two, made)], lambda *_: key)
    assert "not readable" in found[0].problem
    assert "not readable" not in found[1].problem


def test_a_silent_host_counts_as_not_reached(
    hosts: OddHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_after(2, monkeypatch)
    hosts.says("lab-1", ODD["silence"])
    with pytest.raises(UnreachedError, match="no answer within 2 s"):
        installed_helper(host(CHAT), "/h.pyz").poll("x", 0)


def test_a_job_that_is_followed_ends_with_the_error_of_an_odd_host(
    hosts: OddHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.says("lab-1", ODD["a list"])
    monkeypatch.setattr("corral.remote.client.ERRORS_SECONDS", 0)
    client = installed_helper(host(CHAT), "/h")
    with pytest.raises(CorralError, match="not readable"):
        client.follow("x", patience_seconds=9, on_progress=lambda _: None)


@pytest.mark.parametrize("odd", ["null", "nothing", "too much", "silence", "refused", "not UTF-8"])
def test_a_lock_that_an_odd_host_does_not_hold_is_not_held(
    hosts: OddHosts, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setattr(lease, "ANSWER_SECONDS", 1)
    hosts.says("lab-1", ODD[odd])
    with pytest.raises(CorralError, match="^lab-1: "):
        HostLocks([(host(CHAT), plan(CHAT))], by="ann", rollout="r").__enter__()


def test_a_host_that_never_lets_go_is_cut(hosts: OddHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_END_SECONDS", 0.1)
    monkeypatch.setattr(locks, "_HEARTBEAT_SECONDS", 0.1)
    noise = b"Welcome to lab-1!\n"
    hosts.says("lab-1", Answer(b'{"held": true}\n', noise=noise, stays_seconds=FOREVER))
    with HostLocks([(host(CHAT), plan(CHAT))], by="ann", rollout="r"):
        pass


def test_the_pipes_of_gevent_are_limited_as_well(tmp_path: Path) -> None:
    """pyinfra's command line makes pipes and clocks gevent's, and activations ask within it."""
    OddHosts(tmp_path).says("lab-1", Answer(b"x" * MIB, times=600))
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from corral.remote.bounded import SilentError, TooMuchError, run_within\n"
        "assert run_within(['cat'], b'x' * 300_000, seconds=9) == (0, b'x' * 300_000, b'')\n"
        "for command, error in ((['ssh', '--', 'lab-1', ''], TooMuchError),\n"
        "                       (['sleep', '60'], SilentError)):\n"
        "    try:\n        run_within(command, b'', seconds=2 if 'sleep' in command else 60)\n"
        "    except error:\n        print(error.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.split() == ["TooMuchError", "SilentError"], done.stderr


SHAPES: dict[str, TypeAdapter[Any]] = {
    "state": answers.STATE, "checks": answers.CHECKS, "news": answers.JOB_STATUS,
    "reports": answers.REPORTS, "baselines": answers.BASELINES, "releases": answers.RELEASES,
    "gpus": answers.GPUS, "bench": answers.BENCHMARKED, "kept": answers.STORED_GENERATION,
}  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_WORDS = st.sampled_from(
    ["instances", "gpus", "baseline", "samples", "running", "tail", "instance", "check", "ok",
     "detail", "outcome", "phases", "plan", "argv", "listeners", "gpu_host", "shards"]
)  # fmt: skip
_DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_WORDS | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | _DOCUMENTS.map(lambda one: json.dumps(one).encode()))
def test_any_bytes_are_read_or_refused_in_one_printable_line(shape: str, said: bytes) -> None:
    try:
        found = read_answer(SHAPES[shape], said.decode(errors="replace"))
    except UnreadableError as error:
        told = str(error)
    else:
        told = json.dumps(SHAPES[shape].dump_python(found, mode="json"))[:1]
    assert told.isprintable()
    assert len(told) < 1000


def test_a_surrogate_alone_does_not_spoil_an_answer() -> None:
    row = '[{"instance": "chat", "check": "golden", "ok": true, "detail": "said \\ud83d"}]'
    assert read_answer(answers.CHECKS, row)[0].detail == "said ?"
