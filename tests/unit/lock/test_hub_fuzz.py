"""Whatever a hub or a lock file says: an entry of the lock, or one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.lock.lock_file import Lock, LockedModel, read_lock
from corral.lock.resolve import resolve, weights_of
from corral.sources import hub as asking
from tests.samples import CHAT, host
from tests.unit.lock.test_resolve import with_model
from tests.unit.plain_server import ANSWER, COMMIT, serving, tiny

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["sha", "siblings", "lfs", "x.gguf", COMMIT, "a" * 64, "../x"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    | st.fixed_dictionaries({"sha": st.just(COMMIT), "siblings": inner})
    | st.fixed_dictionaries({"rfilename": inner, "size": inner, "lfs": inner})
    | st.fixed_dictionaries({"sha256": inner, "size": inner}),
    max_leaves=12,
)  # fmt: skip
FILES = st.lists(
    st.fixed_dictionaries(
        {"rfilename": st.sampled_from(["x.gguf", "a/x.gguf", "x.gguf/y", "..", ""]) | st.text()},
        optional={"lfs": st.fixed_dictionaries({"size": JSON, "sha256": JSON}) | JSON},
    ),
    max_size=4,
)


# Each example writes the file anew.
ONE_FOLDER = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("every_commit_is_there")]


def outcome(body: bytes) -> None:
    """What an answer becomes: a lock's entry or one CorralError."""
    response = httpx2.Response(200, content=body)
    model = tiny(quants={"Q8_0": {"files": "*"}})
    try:
        found = asking._checked(model, "http://hub", response, "catalog/models/tiny.toml")
        weights_of("tiny", model, "Q8_0", found)
    except CorralError as error:
        refusal = str(error)
    else:
        return
    assert "\x1b" not in refusal


@settings(max_examples=300, deadline=None)
@given(JSON | st.fixed_dictionaries({"sha": st.just(COMMIT), "siblings": FILES}))
def test_whatever_a_hub_says_is_locked_or_refused(said: Any) -> None:
    outcome(json.dumps(said).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_whatever_bytes_a_hub_sends_are_refused(body: bytes) -> None:
    outcome(body)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=64)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"models": st.dictionaries(st.text(max_size=3), JSON, max_size=2)}).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_whatever_a_lock_file_holds_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corral.lock"
    path.write_bytes(content)
    try:
        found = read_lock(path)
    except CorralError:
        return
    assert isinstance(found, Lock)


def test_a_deep_lock_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corral.lock").write_text('{"models": ' + "[" * 100_000)
    with pytest.raises(CorralError, match="corral.lock"):
        read_lock(tmp_path / "corral.lock")


def test_a_whole_lock_comes_of_an_honest_answer() -> None:
    with serving(ANSWER) as url:
        known = with_model(quants={"Q8_0": {"files": "*"}})
        found = resolve(Lock(), known, [host(CHAT, hub_url=url)]).models["small"]
    assert isinstance(found, LockedModel)
    assert [file.path for file in found.quants["Q8_0"]] == ["x.gguf"]
