"""The operator's token: for the hub that gave it, over https, and for gated models alone."""

from __future__ import annotations

import ssl
import subprocess
from functools import partial
from pathlib import Path

import httpx2
import pytest

from corral import hub as asking
from corral.errors import CorralError
from corral.fit.ranges import ShardSource, fetch_headers
from corral.names import HUGGING_FACE
from tests.samples import CHAT, host, planner
from tests.unit.plain_server import ANSWER, COMMIT, Seen, serving, tiny
from tests.unit.test_resolve import with_model

TOKEN = "hf_canary"  # noqa: S105


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and certificate of localhost in one file."""
    path = tmp_path / "hub.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(tmp_path / "c.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (tmp_path / "c.pem").read_text())
    return path


@pytest.mark.parametrize("gated", [False, True])
def test_a_token_is_not_sent_to_another_hub(
    gated: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    seen: Seen = []
    with serving(ANSWER, seen=seen) as plain, serving(ANSWER, seen=seen, context=context) as safe:
        for url in (plain, safe):
            assert asking.describe("tiny", tiny(gated=gated), url).sha == COMMIT
    assert len(seen) == 2
    assert not [request for request in seen if TOKEN in str(request)]


def test_a_token_is_not_sent_for_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    seen: Seen = []
    with serving(b"", status=404, seen=seen) as url, pytest.raises(CorralError):
        fetch_headers([ShardSource(f"{url}/x.gguf", "a" * 64, 10)])
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


def test_hosts_fetch_a_gated_model_from_a_mirror_only() -> None:
    known = with_model(gated=True)
    mirrored = planner().model_copy(update={"catalog": known})
    assert mirrored.plan_host(host(CHAT, hub_url="http://hub.example.com")).shards
    with pytest.raises(CorralError, match="gated") as caught:
        mirrored.plan_host(host(CHAT, hub_url=f"{HUGGING_FACE}/"))
    assert "hub_url" in caught.value.next_step
    assert planner().plan_host(host(CHAT)).shards
