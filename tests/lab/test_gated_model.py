"""A gated model: its host gets the operator's token for a download, and keeps nothing of it."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral.paths import default_headers_folder
from lab import hub
from lab.faults import Rule
from tests.lab.observed import has_quant
from tests.lab.test_downloads import ARRIVED, SHARD, forget_the_shard
from tests.lab.test_secrets import FILES, watched
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import PATIENCE_SECONDS, wait_for
from tests.lab.workspace import Workspace
from tests.unit.gated_hub import asked, certificate, server_context
from tests.unit.running_hub import RunningHub

HOST = "lab-2"
# Slow enough to inspect the host during the download.
SLOW = Rule(match=f"/cdn/*{SHARD}", kind="slow", bytes_per_second=12_000, times=1)
LENT = "/run/credentials/corral-job-fetch.service/hub-token"
TRUSTED = "/usr/local/share/ca-certificates/corral-lab-hub.crt"
JOURNAL = "journalctl --no-pager --output=export | grep --text --fixed-strings -c -f /root/.wanted"
# Time for an end that comes by itself.


@dataclass(frozen=True)
class Gated:
    """A lab whose tiny model is gated, at a hub that lab-2 believes to be the real one."""

    lab: Workspace
    token: str
    log: io.StringIO

    def asked(self) -> set[tuple[str, str]]:
        return set(asked(RunningHub(self.lab.layout.hub, "", self.log), 1))


@pytest.fixture
def gated(fleet: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gated]:
    pem, log, token = certificate(tmp_path), io.StringIO(), f"hf_{secrets.token_hex(16)}"
    address = str(fleet.layout.controller_address)
    (tmp_path / "token").write_text(token)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert default_headers_folder().is_dir(), "the controller itself does not reach this hub"
    trust = f"cat >{TRUSTED} <<'.'\n{(tmp_path / 'public.pem').read_text()}.\n"
    fleet.on(HOST, f"{trust}update-ca-certificates && echo {address} huggingface.co >>/etc/hosts")
    with ExitStack() as stack:
        context = server_context(pem)
        running = hub.running(fleet.layout.hub, address, 443, log=log, context=context, token=token)
        stack.enter_context(running)
        here = '"hub_url": "https://huggingface.co"'
        stack.enter_context(fleet.edited("inventories/lab.py", '"hub_url": _lab.hub_url', here))
        stack.enter_context(
            fleet.edited("catalog/models/tiny-glm-moe.toml", "repo = ", "gated = true\nrepo = ")
        )
        yield Gated(fleet, token, log)
    fleet.on(HOST, f"rm {TRUSTED}; update-ca-certificates; sed -i /huggingface/d /etc/hosts")


def test_a_token_is_lent_to_the_download_and_lost_after_it(gated: Gated) -> None:
    lab, pid = gated.lab, gated.lab.pid(HOST, "tiny-f16")
    forget_the_shard(lab)
    with lab.hub_faults(SLOW), watched(gated.token) as seen:
        running = lab.start_deploy("--limit", HOST, "-vvv", "--debug")
        wait_for(lambda: bool(lab.try_on(HOST, ARRIVED).stdout), "bytes arrive")
        wanted = f"umask 077; cat {LENT} >/root/.wanted; {FILES}"
        assert lab.on(HOST, wanted).splitlines() == [LENT]
        assert lab.on(HOST, f"stat -c %a {LENT}") == "400"
        output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 0, output
    assert gated.token not in output
    assert seen == set()
    assert has_quant(lab, HOST, "F16")
    wait_for(lambda: not lab.try_on(HOST, f"ls {LENT}").stdout, "the credential is gone")
    assert lab.on(HOST, FILES) == ""
    assert lab.try_on(HOST, f"{JOURNAL}; rm /root/.wanted").stdout.strip() == "0"
    assert gated.asked() == {("hub", "yes"), ("storage", "no")}
    assert lab.pid(HOST, "tiny-f16") == pid


def test_a_token_that_is_not_let_in_says_what_to_set(gated: Gated, tmp_path: Path) -> None:
    forget_the_shard(gated.lab)
    (tmp_path / "token").write_text("hf_of_somebody_else")
    refused = gated.lab.deploy("--limit", HOST)
    assert_refused(refused, "the hub answers 401", "set HF_TOKEN where you deploy from")
    assert "hf_of_somebody_else" not in said(refused)


def test_no_token_at_all_is_told_before_any_change(gated: Gated, tmp_path: Path) -> None:
    forget_the_shard(gated.lab)
    (tmp_path / "token").unlink()
    refused = gated.lab.deploy("--limit", HOST)
    assert_refused(refused, f"[{HOST}] a model of this host is gated", "set HF_TOKEN")
    assert gated.log.getvalue() == ""
