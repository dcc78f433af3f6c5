"""The operator's token on a host: passed to one job, sent to the hub, and gone afterwards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corral_shared.hub import authorization

from lab.faults import Rule, faults
from lab.hub import REPOSITORY
from lab.hub_store import Store
from tests.unit.corral_host.weights.test_hostile_download import NEEDS_ARIA2
from tests.unit.gated_hub import TOKEN, asked, certificate, gated_hub, server_context
from tests.unit.helper_modules import helper_module, program
from tests.unit.plain_server import Seen, serving
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub

pytestmark = pytest.mark.slow

fetching, jobs = helper_module("weights.fetch"), helper_module("jobs")
hub_client = helper_module("weights.hub")
headers = helper_module("weights.headers")
HostError = helper_module("system.commands").HostError


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def gated(prepared: Path, pem: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    monkeypatch.setattr(fetching, "ARIA2", (*fetching.ARIA2, f"--ca-certificate={pem}"))
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0)
    with gated_hub(prepared, pem, monkeypatch) as running:
        yield running


def shard(running: RunningHub, state: Path, **changed: Any) -> dict[str, Any]:
    commit = Store(running.root).snapshot(REPOSITORY, "main").commit
    return {
        "url": f"{running.url}{RESOLVE}/{WHOLE}", "revision": commit, "gated": True,
        "path": f"{state}/models/a/b/{'c' * 40}/x.gguf", "size_bytes": len(running.content),
        "sha256": hashlib.sha256(running.content).hexdigest(), **changed,
    }  # fmt: skip


def fetch(state: Path, *shards: dict[str, Any], token: str | None = TOKEN) -> None:
    fetching.fetch({"shards": list(shards), "paths": {"state": str(state)}, "token": token})


@NEEDS_ARIA2
def test_a_gated_model_is_fetched_and_storage_never_sees_the_token(
    gated: RunningHub, tmp_path: Path
) -> None:
    wanted = shard(gated, tmp_path)
    fetch(tmp_path, wanted)
    assert Path(wanted["path"]).read_bytes() == gated.content
    seen = asked(gated, 3)
    assert seen[:2] == [("hub", "yes")] * 2
    assert set(seen[2:]) == {("storage", "no")}
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


@NEEDS_ARIA2
def test_each_try_asks_the_hub_again(gated: RunningHub, tmp_path: Path) -> None:
    wanted = shard(gated, tmp_path)
    refused = Rule(match="/cdn/*", kind="status", code=403, times=1)
    busy = Rule(match=f"{RESOLVE}/*", kind="down", times=2)
    with faults(gated.root, busy, refused):
        fetch(tmp_path, wanted)
    assert Path(wanted["path"]).read_bytes() == gated.content
    assert asked(gated, 6).count(("hub", "yes")) == 4
    assert ("storage", "yes") not in asked(gated, 6)


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_who_was_not_let_in_is_told_what_to_set(
    gated: RunningHub, tmp_path: Path, token: str | None
) -> None:
    with pytest.raises(HostError, match="the hub answers 401") as caught:
        fetch(tmp_path, shard(gated, tmp_path), token=token)
    assert "Next: set HF_TOKEN where you deploy from" in str(caught.value)
    assert "hf_" not in str(caught.value)


def test_no_token_goes_out_for_a_model_that_needs_none(gated: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="401"):
        fetch(tmp_path, shard(gated, tmp_path, gated=False))
    assert asked(gated, 1) == [("hub", "no")]


@pytest.mark.parametrize("safe", [False, True])
def test_no_token_goes_to_another_hub(
    pem: Path, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    seen: Seen = []
    context = server_context(pem) if safe else None
    with serving(b"x", seen=seen, context=context) as url:
        one = {"url": f"{url}/x", "revision": "c", "size_bytes": 1, "token": TOKEN}
        fetching.ask_hub(one)
        with pytest.raises(HostError):
            fetching.place_of(one)
        for address in (f"{url}/x", f"{url}/x?https://huggingface.co/"):
            hub_client.follow(address, {}, TOKEN).close()
    assert len(seen) == 4
    assert TOKEN not in str(seen)


@pytest.mark.parametrize(
    "address",
    ["http://huggingface.co/x", "https://huggingface.co.example.com/x", "https://huggingface.co",
     "https://huggingface.co:8443/x", "https://a@huggingface.co/x", "https://huggingface.com/x",
     "https://huggingface.co@example.com/x", "https://cdn.huggingface.co/x"],
)  # fmt: skip
def test_what_only_looks_like_the_hub_is_not_the_hub(address: str) -> None:
    assert authorization(address, TOKEN) == {}
    assert authorization("https://huggingface.co/x", TOKEN) == {"Authorization": f"Bearer {TOKEN}"}


Answers = dict[str, tuple[int, str]]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> tuple[Answers, list[tuple[str, bool]]]:
    """Scripted answers by address, and the addresses that got a token."""
    answers: Answers = {}
    seen: list[tuple[str, bool]] = []

    class Answer:
        def __init__(self, status: int, place: str) -> None:
            self.status, self.headers = status, {"Location": place}

        def close(self) -> None:
            """Nothing."""

    class Opener:
        def open(self, request: Any, timeout: float) -> Answer:
            assert timeout
            seen.append((request.full_url, "Authorization" in request.headers))
            return Answer(*answers[request.full_url])

    monkeypatch.setattr(hub_client.urllib.request, "build_opener", lambda _: Opener())
    return answers, seen


HUB, CDN = "https://huggingface.co/a/b", "https://cdn.example.com/x?signed"


def test_a_renamed_repository_is_followed_with_the_token_and_left_without(
    reported: tuple[Answers, list[tuple[str, bool]]],
) -> None:
    answers, seen = reported
    answers |= {HUB: (307, "/c/d"), "https://huggingface.co/c/d": (302, CDN)}
    answers[CDN] = (302, f"{HUB}/back")
    answers[f"{HUB}/back"] = (200, "")
    place = fetching.place_of({"url": HUB, "gated": True, "token": TOKEN})
    assert place == CDN
    assert seen == [(HUB, True), ("https://huggingface.co/c/d", True)]
    seen.clear()
    hub_client.follow(HUB, {}, TOKEN)
    assert [sent for _, sent in seen] == [True, True, False, False]


@pytest.mark.parametrize(
    ("answer", "told_"),
    [((302, "http://cdn.example.com/x"), "no storage with an https address"),
     ((302, "http://huggingface.co/a/b"), "no storage with an https address"),
     ((200, ""), "no storage with an https address"), ((403, ""), "answers 403"),
     ((404, ""), "answers 404")],
)  # fmt: skip
def test_a_hub_that_lends_nothing_is_refused(
    reported: tuple[Answers, list[tuple[str, bool]]], answer: tuple[int, str], told_: str
) -> None:
    reported[0][HUB] = answer
    with pytest.raises(HostError, match=told_) as caught:
        fetching.place_of({"url": HUB, "gated": True, "token": TOKEN})
    assert "Next: " in str(caught.value)


@pytest.mark.parametrize("answer", [(503, ""), (302, "ftp://x"), (302, HUB)])
def test_a_hub_that_may_answer_later_is_asked_again(
    reported: tuple[Answers, list[tuple[str, bool]]], answer: tuple[int, str]
) -> None:
    reported[0][HUB] = answer
    with pytest.raises(OSError, match="answers 503|no address by http|more than 10"):
        fetching.place_of({"url": HUB, "gated": True, "token": TOKEN})


def test_a_header_is_proved_with_the_token(gated: RunningHub, tmp_path: Path) -> None:
    data = gated.content[:100]
    header = {"size_bytes": 100, "sha256": hashlib.sha256(data).hexdigest()}
    (one,) = hub_client.with_token([shard(gated, tmp_path, header=header)], TOKEN)
    assert headers.fetch_header(one) == data
    assert asked(gated, 3) == [("hub", "yes"), ("hub", "yes"), ("storage", "no")]


def test_aria2_is_told_nothing_of_the_token(
    gated: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = shard(gated, tmp_path)
    record = f'{{ echo "$@"; env; cat; }} >{tmp_path}/told; exit 9'
    program(tmp_path / "bin", "aria2c", record)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(HostError, match="disk full"):
        fetch(tmp_path, wanted)
    reported = (tmp_path / "told").read_text()
    assert "/cdn/" in reported
    assert TOKEN not in reported


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose systemd-run reads credentials like systemd."""
    monkeypatch.setattr(jobs, "JOBS", tmp_path / "jobs")
    monkeypatch.setattr(jobs, "is_running", lambda _: False)
    script = f"""
{{ echo "$@"; env; }} >{tmp_path}/told
for word; do case "$word" in
  LoadCredential=*) echo "${{word#LoadCredential=*:}}" >{tmp_path}/place
    cat "${{word#LoadCredential=*:}}" >{tmp_path}/lent ;;
esac; done"""
    program(tmp_path / "bin", "systemd-run", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def job(**changed: Any) -> dict[str, Any]:
    spec = {"shards": [], "paths": {"state": "/nowhere"}}
    return {"kind": "fetch", "spec": spec, "by": "anna", "at": "now", **changed}


def test_a_job_is_lent_the_token_by_systemd_and_it_lies_nowhere(started: Path) -> None:
    jobs.start("fetch", job(token=TOKEN))
    assert (started / "lent").read_text() == TOKEN
    reported = (started / "told").read_text()
    assert "LoadCredential=hub-token:/proc/" in reported
    # The credential must be readable until the unit's own process starts.
    assert "Type=exec" in reported
    (started / "lent").unlink()
    place = (started / "place").read_text().strip()
    assert not Path(place).exists() or Path(place).read_bytes() != TOKEN.encode()
    kept = [path for path in started.rglob("*") if path.is_file()]
    assert {"job.json", "log", "told"} <= {path.name for path in kept}
    assert not [path for path in kept if TOKEN in path.read_text()]


def test_a_job_without_a_token_is_lent_none(started: Path) -> None:
    jobs.start("fetch", job())
    assert "LoadCredential" not in (started / "told").read_text()


@pytest.mark.usefixtures("started")
def test_a_running_job_is_joined_whatever_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.start("fetch", job(token=TOKEN))
    monkeypatch.setattr(jobs, "is_running", lambda _: True)
    assert jobs.start("fetch", job(token=TOKEN[::-1]))["joined"]


def test_a_job_finds_what_it_was_lent(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setitem(jobs.KINDS, "fetch", lambda spec: given.append(spec["token"]))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    jobs.start("fetch", job())
    assert jobs.run("fetch") == 0
    (started / "hub-token").write_text(TOKEN)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(started))
    assert jobs.run("fetch") == 0
    assert given == [None, TOKEN]
    assert TOKEN not in (started / "jobs" / "fetch" / "result.json").read_text()
    assert "token" not in json.loads((started / "jobs" / "fetch" / "job.json").read_text())
