"""Exports, started on their instance's host on another port, give the same server."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corral.engines import engine_module
from tests.lab.compose_parser import parsed
from tests.lab.observed import pids
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace
from tests.samples import CHAT
from tests.unit.exports import ALL_NASTY, EXTRA, TELLS, exported, subject

HOST, INSTANCE = "lab-1", "tiny-long"
DEPLOYED, EXPORTED = "http://127.0.0.1:8002", "http://127.0.0.1:8102"
MOVED = ("--port", "8102")
FOLDER = "/root/exports"
UNIT = "exported-server"
KEYS = f"/etc/corral/keys/{INSTANCE}"
LAB = "inventories/lab.py"
SOCKET_FILE = "/run/corral-tiny-socket/llama.sock"
HEALTH = f"curl --silent --fail --unix-socket {SOCKET_FILE} http://localhost/health"
ASK = '{"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}'


def put(lab: Workspace, name: str, text: str) -> str:
    """Write a file on the host; returns its path."""
    path, encoded = f"{FOLDER}/{name}", base64.b64encode(text.encode()).decode()
    lab.on(HOST, f"mkdir -p {FOLDER}; echo {encoded} | base64 --decode > {path}; chmod 755 {path}")
    return path


def export(lab: Workspace, form: str) -> str:
    """Output of `corral export`."""
    done = lab.corral("export", f"{HOST}/{INSTANCE}", "--as", form, "-i", LAB)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def service(lab: Workspace, command: list[str], *properties: str) -> Iterator[None]:
    """Run this command as a minimal service on the host until the block ends."""
    options = [f"--unit={UNIT}", "--quiet", "--collect", "--service-type=exec", *properties]
    before = pids(lab)
    lab.on(HOST, shlex.join(["systemd-run", *options, "--", *command]))
    try:
        wait_for(lambda: status(lab, EXPORTED, "/health") == "200", "the exported server is up")
        yield
    finally:
        lab.on(HOST, f"systemctl stop {UNIT}; rm -rf {FOLDER}")
    assert pids(lab) == before


def status(lab: Workspace, server: str, path: str, *words: str) -> str:
    """The HTTP status of a request without a key."""
    curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
    return lab.try_on(HOST, shlex.join([*curl, *words, f"{server}{path}"])).stdout


def keyed(lab: Workspace, server: str, path: str, *words: str) -> Any:
    """The answer to a request with the instance's key, which is in no command line."""
    curl = shlex.join(["curl", "--silent", "--fail", "--header", "@-", *words, f"{server}{path}"])
    return json.loads(lab.on(HOST, f"sed 's/^/Authorization: Bearer /' {KEYS} | {curl}"))


def assert_the_same_server(lab: Workspace) -> None:
    """It answers only with the key, and reports the same properties as the deployed server."""
    chat = "/v1/chat/completions"
    answer = keyed(lab, EXPORTED, chat, "--data", ASK)
    assert answer["usage"]["completion_tokens"] > 0
    assert status(lab, EXPORTED, chat, "--data", ASK) == "401"
    assert status(lab, EXPORTED, "/props") == "401"
    props = [keyed(lab, server, "/props") for server in (EXPORTED, DEPLOYED)]
    # Random at each start.
    assert len({found.pop("media_marker") for found in props}) == 2
    assert props[0] == props[1]
    listed = [keyed(lab, server, "/v1/models")["data"][0] for server in (EXPORTED, DEPLOYED)]
    assert [model.pop("created") > 0 for model in listed] == [True, True]
    assert listed[0] == listed[1]


def test_the_script_starts_the_same_server(deployed_once: Workspace) -> None:
    path = put(deployed_once, "start", export(deployed_once, "script"))
    with service(deployed_once, [path, *MOVED], "--setenv=LLAMA_API_KEY=stray"):
        assert_the_same_server(deployed_once)
        stray = ("--header", "Authorization: Bearer stray")
        assert status(deployed_once, EXPORTED, "/props", *stray) == "401"


def test_the_script_refuses_a_key_file_without_keys(deployed_once: Workspace) -> None:
    path = put(deployed_once, "start", export(deployed_once, "script"))
    done = deployed_once.try_on(HOST, f"CORRAL_KEYS=/dev/null {path} {shlex.join(MOVED)}")
    deployed_once.on(HOST, f"rm -rf {FOLDER}")
    assert done.returncode == 1
    assert done.stderr.startswith("/dev/null: there is no key in it. Next: ")


def test_the_script_of_a_socket_server_starts_again_and_leaves_the_units_alone(
    fleet: Workspace,
) -> None:
    done = fleet.corral("export", "lab-3/tiny-socket", "--as", "script", "-i", LAB)
    encoded = base64.b64encode(done.stdout.encode()).decode()
    fleet.on("lab-3", f"echo {encoded} | base64 --decode > /root/start")
    refused = fleet.try_on("lab-3", "bash /root/start")
    assert refused.returncode == 1
    assert "in use (curl exited 0)" in refused.stderr
    fleet.on("lab-3", "systemctl stop corral-tiny-socket")
    for _ in range(2):
        fleet.on("lab-3", f"systemd-run --quiet --collect --unit={UNIT} bash /root/start")
        wait_for(lambda: fleet.try_on("lab-3", HEALTH).returncode == 0, "the server is up")
        fleet.on("lab-3", f"systemctl stop {UNIT}; test -S {SOCKET_FILE}")
    fleet.on("lab-3", f"rm -r /root/start {Path(SOCKET_FILE).parent}")


def test_the_environment_file_starts_the_same_server_by_systemd(deployed_once: Workspace) -> None:
    text = export(deployed_once, "env")
    path = put(deployed_once, "server.env", text)
    (line,) = re.findall(r"^# +ExecStart=(.*)$", text, re.MULTILINE)
    with service(deployed_once, [*line.split(), *MOVED], f"--property=EnvironmentFile={path}"):
        assert_the_same_server(deployed_once)


def test_the_environment_file_starts_the_same_server_by_a_shell(deployed_once: Workspace) -> None:
    text = export(deployed_once, "env")
    path = put(deployed_once, "server.env", text)
    (line,) = re.findall(r"^# shell: +(.*)$", text, re.MULTILINE)
    line = line.replace("FILE", path).removesuffix('")') + f' {shlex.join(MOVED)}")\n'
    start = put(deployed_once, "start", f"#!/bin/sh\n{line}")
    with service(deployed_once, [start]):
        assert_the_same_server(deployed_once)


def test_the_compose_file_starts_the_same_server(deployed_once: Workspace, tmp_path: Path) -> None:
    """There is no Docker on the host: systemd runs the command with its environment and secret."""
    found = parsed(export(deployed_once, "compose"), tmp_path)["services"][INSTANCE]
    command = [*found["entrypoint"], *found["command"], *MOVED]
    assert not [word for word in command if "$" in word]
    environment = [f"--setenv={name}={value}" for name, value in found["environment"].items()]
    secret = f"--property=BindReadOnlyPaths={KEYS}:/run/secrets/api-keys"
    check = [word.replace("8002", "8102") for word in found["healthcheck"]["test"][1:]]
    with service(deployed_once, command, *environment, secret):
        assert_the_same_server(deployed_once)
        assert json.loads(deployed_once.on(HOST, shlex.join(check))) == {"status": "ok"}
    assert deployed_once.try_on(HOST, shlex.join(check)).returncode != 0


def test_no_export_holds_a_key(deployed_once: Workspace) -> None:
    store = deployed_once.layout.keys / HOST / INSTANCE
    (key,) = [line for line in store.read_text().splitlines() if not line.startswith("#")]
    assert deployed_once.on(HOST, f"cat {KEYS}") == key
    for form in ("script", "env", "compose"):
        assert key not in export(deployed_once, form)


def test_systemd_reads_nasty_words_of_an_environment_file_as_they_are(
    deployed_once: Workspace,
) -> None:
    about = subject(CHAT, alias=ALL_NASTY, extra_flags=EXTRA)
    path = put(deployed_once, "nasty.env", exported("env", about))
    program = put(deployed_once, "tells", TELLS.format(python="/usr/bin/python3"))
    words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    words += [f"--property=EnvironmentFile={path}", program, "$CORRAL_EXTRA_ARGS"]
    argv, environment = json.loads(deployed_once.on(HOST, shlex.join(words)))
    deployed_once.on(HOST, f"rm -rf {FOLDER}")
    assert argv[1:] == list(EXTRA)
    assert environment["LLAMA_ARG_ALIAS"] == ALL_NASTY


def test_the_server_has_the_variables_that_we_say(deployed_once: Workspace) -> None:
    program = deployed_once.on(HOST, "echo /opt/corral/engines/llama.cpp/*/bin/llama-server")
    told: dict[str, str] = {}
    flags: list[str] = []
    for line in deployed_once.on(HOST, f"{program} --help").splitlines():
        if line.startswith("-"):
            # Help begins in column 40, or on the next line.
            flags = re.findall(r"--[a-z][a-z-]*", line if line[39:40].strip() else line[:40])
        if variable := re.search(r"\(env: (\w+)\)", line):
            told |= dict.fromkeys(flags, variable[1])
    ours = engine_module("llama.cpp").flags.variables
    said = {**ours.valued, **{flag: name for flag, (name, _) in ours.switches.items()}}
    assert {flag: told.get(flag) for flag in said} == said
