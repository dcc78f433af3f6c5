"""ik_llama.cpp, built from its real sources, beside the mainline on one host."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.lab.untouched import said
from tests.lab.workspace import Workspace

HOST, INSTANCE, PORT = "lab-2", "tiny-ik", 8002
MAINLINE, MAINLINE_PORT = "tiny-f16", 8001
ENGINE = "lab-ik_llama.cpp"
RELEASES = f"/opt/corral/engines/{ENGINE}"
JOB = f"/var/lib/corral/jobs/build-{ENGINE}"
# The key comes from its file by a pipe; prints the body, then the status.
ASK = (
    "sed -n '/^[^#]/{{s/^/Authorization: Bearer /p;q}}' {keys} | curl --silent --header @- "
    "--write-out '\\n%{{http_code}}' --header 'Content-Type: application/json' "
    "--data '{body}' http://127.0.0.1:{port}/v1/chat/completions"
)
BODY = {
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 24,
    "temperature": 0,
    "top_k": 1,
}


def ask(lab: Workspace, port: int, keys: str) -> tuple[str, int]:
    """Body and status of a completion's answer."""
    command = ASK.format(keys=keys, body=json.dumps(BODY), port=port)
    body, _, status = lab.on(HOST, command).rpartition("\n")
    return body, int(status)


def reply(lab: Workspace, instance: str, port: int) -> str:
    """The server's answer to a completion with its key."""
    body, status = ask(lab, port, f"/etc/corral/keys/{instance}")
    assert status == 200, body
    content: str = json.loads(body)["choices"][0]["message"]["content"]
    return content


@pytest.fixture(scope="module")
def built(deployed_once: Workspace) -> Workspace:
    """The lab once this host has built the engine itself."""
    deployed_once.on(HOST, f"rm -rf {RELEASES}/* {JOB}")
    shutil.rmtree(deployed_once.layout.archives / ENGINE)
    done = deployed_once.deploy("--limit", HOST)
    assert done.returncode == 0, said(done)
    return deployed_once


def test_its_program_is_built_from_the_labs_commit(built: Workspace) -> None:
    assert json.loads(built.on(HOST, f"cat {JOB}/job.json"))["kind"] == "build"
    program = built.on(HOST, f"readlink /proc/{built.pid(HOST, INSTANCE)}/exe")
    manifest = json.loads(built.on(HOST, f"cat {RELEASES}/*/manifest.json"))
    assert program == f"{RELEASES}/{manifest['key']}/bin/llama-server"
    version = built.on(HOST, f"{program} --version 2>&1").split("(")[1].split(")")[0]
    assert len(version) >= 7
    assert manifest["commit"].startswith(version)
    assert manifest["kind"] == "ik_llama.cpp"
    assert "bin/llama-sweep-bench" in manifest["files"]


def test_it_says_the_same_as_mainline(built: Workspace) -> None:
    answer = reply(built, INSTANCE, PORT)
    assert len(answer) > 10
    assert answer == reply(built, MAINLINE, MAINLINE_PORT)


def test_another_servers_key_is_refused(deployed_once: Workspace) -> None:
    _, status = ask(deployed_once, PORT, f"/etc/corral/keys/{MAINLINE}")
    assert status == 401


def test_verification_passes_and_finds_it_when_it_is_down(fleet: Workspace) -> None:
    arguments = ("verify", f"{HOST}/{INSTANCE}", "-i", "inventories/lab.py")
    passed = fleet.corral(*arguments)
    assert passed.returncode == 0, said(passed)
    fleet.on(HOST, f"systemctl stop corral-{INSTANCE}")
    failed = fleet.corral(*arguments)
    assert failed.returncode == 1, said(failed)


def test_a_mainline_flag_is_a_mistake_in_the_plan(fleet: Workspace) -> None:
    old = "prompt_cache_mib = 64"
    with fleet.edited("catalog/profiles/tiny-single.toml", old, f'{old}\nload_mode = "direct"'):
        refused = fleet.corral("plan", HOST, "-i", "inventories/lab.py")
    assert refused.returncode == 1
    assert f"{HOST}/{INSTANCE}" in said(refused)
    assert "load_mode" in said(refused)
    assert "Next:" in said(refused)
