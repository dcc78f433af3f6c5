"""The unit of a vLLM server on a real host, whose program tries what vLLM does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from corral.plan.instance import InstancePlan
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace
from tests.samples import host
from tests.unit.vllm_samples import ASKED, ON_CPU, ON_SOCKET, planner

HOST = "lab-1"
UNIT = "corral-glm.service"
KEYS = "/etc/corral/keys/glm"
CONFIG = "/run/corral-glm/vllm.yaml"
FIRST, SECOND = "first-key-of-the-unit-00", "second-key-of-the-unit-0"
PORT = 18001

# Tries what vLLM's processes do, and answers with what happened, with a key.
SERVER = r"""
import http.server, json, mmap, os, pathlib, socket, socketserver, sys

def tried(step):
    try:
        return step() or "done"
    except OSError as error:
        return str(error)

def loopback():
    with socket.socket() as rank:
        rank.bind(("127.0.0.1", 0))
        rank.listen()
        with socket.create_connection(rank.getsockname(), timeout=5):
            pass

def outside():
    socket.create_connection(("192.0.2.1", 80), timeout=2)

FOUND = {
    "scheduler": tried(lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))),
    "affinity": tried(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()),
    "loopback": tried(loopback),
    "machine code": tried(lambda: mmap.mmap(-1, 4096, prot=7).close()),
    "home": tried(lambda: pathlib.Path.home().joinpath(".cache").mkdir(exist_ok=True)),
    "outside": tried(outside),
}
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1]
KEYS = json.loads(pathlib.Path(value("--config")).read_text())["api-key"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization", "")[7:] in KEYS
        body = json.dumps(FOUND).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body) if known else 0))
        self.end_headers()
        self.wfile.write(body if known else b"")
    def log_message(self, *_):
        pass
    def address_string(self):
        return "client"

class OnSocket(socketserver.UnixStreamServer):
    server_name, server_port = "glm", 0

if "--uds" in words:
    OnSocket(value("--uds"), Handler).serve_forever()
http.server.HTTPServer((value("--host"), int(value("--port"))), Handler).serve_forever()
"""
# As the release's interpreter: it serves if vLLM's module is named, and runs code else.
PYTHON = (
    '#!/bin/sh\n[ "$2" = -c ] && exec /usr/bin/python3 "$@"\nexec /usr/bin/python3 -I {0} "$@"\n'
)


def planned(**changes: Any) -> InstancePlan:
    spec = ON_SOCKET if changes.get("listen") == "unix" else {**ASKED, "port": PORT}
    return planner(**{**ON_CPU, **changes}).plan_host(host(spec, name=HOST)).instances[0]


def put(lab: Workspace, path: str, text: str, mode: str = "644") -> None:
    """Write a file on the host."""
    data = base64.b64encode(text.encode()).decode()
    lab.on(HOST, f"install -D -m {mode} /dev/null {path} && echo {data} | base64 -d > {path}")


def install(lab: Workspace, instance: InstancePlan, keys: str) -> None:
    program = instance.argv[0]
    server = f"{instance.release_folder}/server.py"
    put(lab, server, SERVER)
    put(lab, program, PYTHON.format(server), "755")
    lab.on(HOST, "install -d -m 700 /etc/corral/keys")
    put(lab, KEYS, keys, "600")
    put(lab, instance.unit_path, instance.unit_text)
    lab.on(HOST, f"systemctl daemon-reload && systemctl reset-failed {UNIT}; true")


@pytest.fixture
def lab(bare_lab: Workspace) -> Iterator[Workspace]:
    """A lab whose first host has no such unit afterwards."""
    yield bare_lab
    folder = planned().release_folder
    bare_lab.on(
        HOST,
        f"systemctl stop {UNIT}; rm -rf /etc/systemd/system/{UNIT} {KEYS} {folder}"
        f" /var/cache/private/corral-glm && systemctl daemon-reload && systemctl reset-failed",
    )


def answer(lab: Workspace, key: str | None, where: str = f"http://127.0.0.1:{PORT}/") -> str:
    """Status and body of an answer; the status is 000 while nobody answers."""
    header = f"--header 'Authorization: Bearer {key}'" if key else ""
    return lab.on(
        HOST, f"curl --silent --max-time 5 --write-out '\\n%{{http_code}}' {header} {where}; true"
    )


def serves(lab: Workspace, key: str) -> bool:
    return answer(lab, key).endswith("200")


def start(lab: Workspace) -> None:
    lab.on(HOST, f"systemctl restart {UNIT}")
    wait_for(lambda: not answer(lab, None).endswith("000"), "the server answers")


def exposure(lab: Workspace) -> float:
    said = lab.on(HOST, f"systemd-analyze security --no-pager {UNIT}")
    return float(said.partition(f"Overall exposure level for {UNIT}: ")[2].split()[0])


def pid(lab: Workspace) -> str:
    return lab.on(HOST, f"systemctl show --property MainPID --value {UNIT}")


ALLOWED = dict.fromkeys(
    ["scheduler", "affinity", "netlink", "loopback", "machine code", "home"], "done"
)


def test_the_unit_allows_what_its_processes_need(lab: Workspace) -> None:
    install(lab, planned(), f"{FIRST}\n")
    start(lab)
    found = json.loads(answer(lab, FIRST).rpartition("\n")[0])
    assert {name: found[name] for name in ALLOWED} == ALLOWED
    assert found["outside"] != "done"
    # A lab host may not raise it so far.
    assert lab.on(HOST, f"systemctl show {UNIT} --property LimitNOFILE --value") == "65535"
    assert exposure(lab) <= 1.2
    quiet = lab.try_on(HOST, f"systemd-analyze verify /etc/systemd/system/{UNIT}")
    assert quiet.stdout + quiet.stderr == ""
    home = f"tr '\\0' '\\n' < /proc/{pid(lab)}/environ | grep ^HOME="
    assert lab.on(HOST, home) == "HOME=/var/cache/corral-glm"


def test_its_keys_are_those_of_the_key_file_at_each_start(lab: Workspace) -> None:
    install(lab, planned(), f"# two\n{FIRST}\n{SECOND}\n")
    start(lab)
    assert serves(lab, FIRST)
    assert serves(lab, SECOND)
    assert answer(lab, None).endswith("401")
    assert lab.on(HOST, f"stat --format=%a {CONFIG}") == "600"
    owner = lab.on(HOST, f"stat --format=%u {CONFIG}")
    assert 61184 <= int(owner) <= 65519
    for place in ("cmdline", "environ"):
        assert "key-of-the-unit" not in lab.on(HOST, f"tr '\\0' ' ' < /proc/{pid(lab)}/{place}")
    assert "key-of-the-unit" not in lab.on(HOST, f"journalctl --unit {UNIT}; systemctl show {UNIT}")
    put(lab, KEYS, f"{SECOND}\n", "600")
    assert serves(lab, FIRST), "keys are read at the start"
    start(lab)
    assert serves(lab, SECOND)
    assert answer(lab, FIRST).endswith("401")
    lab.on(HOST, f"systemctl stop {UNIT}")
    assert lab.try_on(HOST, f"test -e {CONFIG}").returncode != 0


@pytest.mark.parametrize(
    ("text", "said"),
    [("# none\n", "there is no key in it"), (f"-{FIRST}\n", "no key that begins with a dash")],
)
def test_without_keys_that_it_can_take_it_does_not_start(
    lab: Workspace, text: str, said: str
) -> None:
    install(lab, planned(), text)
    assert lab.try_on(HOST, f"systemctl start {UNIT}").returncode != 0
    assert answer(lab, None).endswith("000")
    journal = lab.on(HOST, f"journalctl --unit {UNIT}")
    assert said in journal
    assert FIRST not in journal


def test_it_comes_back_when_it_ends_with_code_0(lab: Workspace) -> None:
    install(lab, planned(), f"{FIRST}\n")
    start(lab)
    before = pid(lab)
    lab.on(HOST, f"kill -TERM {before}")
    wait_for(lambda: pid(lab) not in ("0", before) and serves(lab, FIRST), "it is back")


def test_on_a_socket_it_is_exposed_less_and_its_processes_have_their_loopback(
    lab: Workspace,
) -> None:
    install(lab, planned(listen="unix"), f"{FIRST}\n")
    lab.on(HOST, f"systemctl restart {UNIT}")
    where = "--unix-socket /run/corral-glm/vllm.sock http://localhost/"
    wait_for(lambda: answer(lab, FIRST, where).endswith("200"), "the server answers")
    found = json.loads(answer(lab, FIRST, where).rpartition("\n")[0])
    assert {name: found[name] for name in ALLOWED} == ALLOWED
    assert found["outside"] != "done"
    assert exposure(lab) <= 0.7
