"""Requests are counted by client from lines as HAProxy 2.6 writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

LINES = """\
<6>10.1.1.1:54820 [30/Nov/2026:02:12:18.166] clients-small small/one_chat 0/0/1/20/98 200 949 - - ---- 1/1/0/0/0 0/0 {alice} "POST /v1/chat/completions HTTP/1.1"
<6>10.1.1.1:54820 [30/Nov/2026:02:12:19.166] clients-small~ small/one_chat 0/0/1/-1/98 -1 0 - - CD-- 1/1/0/0/0 0/0 {alice} "POST /v1/completions HTTP/1.1"
<6>10.1.1.1:54820 [30/Nov/2026:02:12:19.366] clients-small small/two_chat 0/0/1/2/98 503 10 - - SC-- 1/1/0/0/+1 0/0 {bob@example.com} "POST /v1/completions HTTP/1.1"
<6>10.1.1.2:54828 [30/Nov/2026:02:12:18.250] clients-small small/one_chat 0/0/0/1/5 200 49 - - ---- 1/1/0/0/0 0/0 {-} "GET /v1/models HTTP/1.1"
<6>10.1.1.3:54840 [30/Nov/2026:02:12:18.334] clients-small clients-small/<NOSRV> 0/-1/-1/-1/0 401 59 - - LR-- 1/1/0/0/0 0/0 {} "GET /v1/x HTTP/1.1"
<6>10.1.1.4:1 [30/Nov/2026:02:12:18.334] clients-large large/one_long 0/0/0/1/5 200 49 - - ---- 1/1/0/0/0 0/0 "GET /v1/models HTTP/1.1"
<6>10.1.1.4:1 [30/Nov/2026:02:12:18.334] metrics metrics/<STATS> 0/0/0/1/5 200 49 - - ---- 1/1/0/0/0 0/0 "GET /metrics HTTP/1.1"
<5>Server small/one_chat is UP, reason: Layer7 check passed
<6>10.1.1.5:2 [x] clients-small small/one 0/0/0/1/5 200 49 - - ---- 1/1/0/0/0 0/0 {eve\\x1b[2J} "GET / HTTP/1.1"
"""  # noqa: E501  (lines of a log)


def journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\ncat {folder}/log\n')
    program.chmod(0o755)
    (folder / "log").write_text(LINES)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_requests_are_counted_by_pool_and_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, monkeypatch)
    found = helper_module("gateway.clients").clients({"seconds": 7200})["clients"]
    assert found == [
        {"pool": "large", "client": "", "requests": 1, "refused": 0, "failed": 0},
        {"pool": "small", "client": "", "requests": 1, "refused": 1, "failed": 0},
        {"pool": "small", "client": "alice", "requests": 2, "refused": 0, "failed": 1},
        {"pool": "small", "client": "bob@example.com", "requests": 1, "refused": 0, "failed": 1},
    ]
    asked = (tmp_path / "asked").read_text()
    assert "--unit=haproxy --since=-7200s" in asked
