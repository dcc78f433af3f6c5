"""The operator's token: for the hub that gave it, over https, and for gated models alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx2
import pytest
from corral_shared.hub import HUGGING_FACE

from corral.errors import CorralError
from corral.fit.ranges import ShardSource, fetch_headers, read_gguf
from corral.preflight.checks import preflight
from corral.sources import hub as asking
from corral.sources.hub_token import operator_token
from tests.samples import CHAT, NOW_SECONDS, bare, host, planner
from tests.unit.gated_hub import TOKEN, asked, certificate, gated_hub, server_context
from tests.unit.lock.test_resolve import with_model
from tests.unit.plain_server import ANSWER, COMMIT, Seen, serving, tiny
from tests.unit.running_hub import RESOLVE, WHOLE


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("gated", [False, True])
def test_a_token_is_not_sent_to_another_hub(
    gated: bool, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    seen: Seen = []
    with (
        serving(ANSWER, seen=seen) as plain,
        serving(ANSWER, seen=seen, context=server_context(pem)) as safe,
    ):
        for url in (plain, safe):
            assert asking.describe("tiny", tiny(gated=gated), url).sha == COMMIT
    assert len(seen) == 2
    assert not [request for request in seen if TOKEN in str(request)]


def test_a_token_is_not_sent_for_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    seen: Seen = []
    with serving(b"", status=404, seen=seen) as url, pytest.raises(CorralError):
        fetch_headers([ShardSource(f"{url}/x.gguf", "a" * 64, 10)], read_gguf)
    assert seen
    assert TOKEN not in str(seen)


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Stands in for the hub itself, which redirects to another origin first."""
    seen: Seen = []

    def answered(request: httpx2.Request) -> httpx2.Response:
        seen.append({**request.headers, "host": request.url.host})
        if request.url.host == "huggingface.co":
            return httpx2.Response(307, headers={"Location": "https://elsewhere.example.com/x"})
        return httpx2.Response(200, content=iter([ANSWER]))

    transport = httpx2.MockTransport(answered)
    monkeypatch.setattr(asking, "Client", partial(httpx2.Client, transport=transport))
    return seen


def test_a_token_is_sent_to_the_hub_itself_for_a_gated_model(
    hugging_face: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    asking.describe("tiny", tiny(gated=True), HUGGING_FACE)
    sent = [(request["host"], TOKEN in str(request)) for request in hugging_face]
    assert sent == [("huggingface.co", True), ("elsewhere.example.com", False)]


def test_no_token_is_sent_for_a_model_that_needs_none(
    hugging_face: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    asking.describe("tiny", tiny(), HUGGING_FACE)
    assert TOKEN not in str(hugging_face)


def test_a_gated_model_without_a_token_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(CorralError, match="HF_TOKEN"):
        asking.describe("tiny", tiny(gated=True), HUGGING_FACE)


def test_hosts_are_told_which_weights_need_the_token() -> None:
    known = planner().model_copy(update={"catalog": with_model(gated=True)})

    def gated(**data: str) -> list[bool]:
        return [shard.gated for shard in known.plan_host(host(CHAT, **data)).shards]

    assert gated(hub_url=HUGGING_FACE) == gated(hub_url=f"{HUGGING_FACE}/") == [True]
    mirrors = ("http://huggingface.co", "http://hub.example.com", "https://hub.example.com")
    assert [gated(hub_url=url) for url in mirrors] == [[False]] * 3
    assert not any(shard.gated for shard in planner().plan_host(host(CHAT)).shards)


def test_no_plan_holds_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    known = planner().model_copy(update={"catalog": with_model(gated=True)})
    assert TOKEN not in known.plan_host(host(CHAT, hub_url=HUGGING_FACE)).to_helper()


@pytest.mark.parametrize("is_gated", [False, True])
def test_a_header_is_fetched_with_the_token_where_it_is_needed(
    prepared: Path, pem: Path, monkeypatch: pytest.MonkeyPatch, is_gated: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with gated_hub(prepared, pem, monkeypatch) as running:
        url, size_bytes = f"{running.url}{RESOLVE}/{WHOLE}", len(running.content)
        source = ShardSource(url, "a" * 64, size_bytes, is_gated)
        if is_gated:
            (found,) = fetch_headers([source], read_gguf)
            assert found.header.data_start_bytes < size_bytes
            # Each notes a request once it has answered, so in either order.
            assert set(asked(running, 2)) == {("hub", "yes"), ("storage", "no")}
        else:
            with pytest.raises(CorralError, match="requires a token"):
                fetch_headers([source], read_gguf)
            assert asked(running, 1) == [("hub", "no")]


def test_a_header_of_a_gated_model_without_a_token_says_what_to_set(
    prepared: Path, pem: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with gated_hub(prepared, pem, monkeypatch) as running:
        url = f"{running.url}{RESOLVE}/{WHOLE}"
        with pytest.raises(CorralError, match="HF_TOKEN"):
            fetch_headers([ShardSource(url, "a" * 64, len(running.content), gated=True)], read_gguf)


@pytest.mark.parametrize(
    "odd", ["", "  ", "two words", "hf\nX-Evil: 1", "hf\x00", "hf_\u202e", "h" * 2000]
)
def test_what_is_no_token_is_none(monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: odd)
    assert operator_token() is None


def test_a_host_without_its_gated_weights_needs_a_token_before_any_change() -> None:
    known = planner().model_copy(update={"catalog": with_model(gated=True)})
    planned = known.plan_host(host(CHAT, hub_url=HUGGING_FACE))
    (found,) = preflight(planned, bare(planned), now_seconds=NOW_SECONDS)
    assert "gated" in found.what
    assert "HF_TOKEN" in found.next_step
    assert preflight(planned, bare(planned), now_seconds=NOW_SECONDS, has_token=True) == []
    have = {shard.path: {"proved": True, "staged_bytes": 0} for shard in planned.shards}
    assert preflight(planned, bare(planned, shards=have), now_seconds=NOW_SECONDS) == []
