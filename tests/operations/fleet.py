"""A fleet of @fake hosts under the real deploy.py, with a real store of keys."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from pyinfra.api import Host, State, StringCommand
from pyinfra.api.operations import run_ops
from pyinfra.connectors.fake import FakeConnector
from pyinfra.context import ctx_state
from pyinfra_cli.util import load_deploy_file  # type: ignore[import-untyped]

from corral.engines.flag_table import flags_of
from corral.host.state import HostState
from corral.inventory.hosts import parse_host
from corral.plan.host import HostPlan
from corral.planning.load import load_planner
from corral.project import helper_package
from corral.remote.bounded import Ended
from corral.remote.helper_archive import archive
from corral.remote.transport import SshTransport
from corral.remote.unreached import UnreachedError
from corral.store.api_keys import ensure_keys
from deploys import keys
from tests.operations import fakes
from tests.operations.fakes import AT_ONCE, connected
from tests.samples import EXAMPLES, ROOT, bare, settled

INSTANCES: list[dict[str, Any]] = [
    {"name": "chat", "profile": "tiny-chat", "port": 8001},
    {"name": "long", "profile": "tiny-long", "port": 8002},
]
STATE = "command -v python3"
ENDED = {"running": False, "ok": True, "error": "", "offset": 1, "tail": [], "answer": None}
ARCHIVE = b"the archive of a release"


BUILT = {
    "manifest": {"flags": []},
    "archive": {
        "path": "/var/lib/corral/archives/a.tar.zst",
        "size_bytes": len(ARCHIVE),
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
    },
}


@dataclass
class Fleet:
    """Fake hosts of one deploy, with a store of keys; ``held``: names that a gateway has."""

    keys_folder: Path
    archives_folder: Path
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()

    def data(self) -> dict[str, Any]:
        folders = {
            "keys_folder": str(self.keys_folder),
            "archives_folder": str(self.archives_folder),
        }
        return {**AT_ONCE, **folders, "instances": INSTANCES}

    def plan(self, name: str) -> HostPlan:
        host = parse_host(f"@fake/{name}", self.data())
        return load_planner(EXAMPLES).plan_host(host)

    def key(self, name: str, instance: str) -> str:
        return ensure_keys(parse_host(f"@fake/{name}", self.data()), instance).first

    def digests(self, name: str) -> dict[str, str]:
        host = parse_host(f"@fake/{name}", self.data())
        return {i["name"]: ensure_keys(host, i["name"]).digest for i in INSTANCES}

    def flags(self, name: str) -> list[str]:
        """All arguments of a host's instances."""
        return sorted(flag for i in self.plan(name).instances for flag in flags_of(i.argv[1:]))

    def add(self, name: str, state: HostState | None, **answers: Any) -> None:
        """A host with this state (None: it cannot be reached) that passes all checks."""
        rows = [
            {"instance": i["name"], "check": "health", "ok": True, "detail": ""} for i in INSTANCES
        ]
        proved = [{"instance": i["name"], "ok": True} for i in INSTANCES]
        fine = {
            " history": "[]",
            **{f" poll activate-{i['name']}": kept(name, i["name"]) for i in INSTANCES},
            " poll build-": json.dumps({**ENDED, "answer": BUILT}),
            " poll ": json.dumps(ENDED),
            " start ": '{"joined": false}',
            " manifest": json.dumps({"flags": self.flags(name)}),
            " check": json.dumps(rows),
            " prove": json.dumps(proved),
        }
        reported: dict[str, Any] = {"success": False}
        if state is not None:
            now = state.model_copy(update={"time_seconds": time.time()})
            reported = {"stdout": now.model_dump_json()}
        scripted = {f" {word}": answer for word, answer in answers.items()}
        self.hosts[name] = {
            **self.data(),
            "fake_responses": {STATE: reported, **scripted, **fine, **scripted},
        }

    def connect(self, *limit: str) -> State:
        return connected(self.hosts, limit)

    def deploy(self, connected_to: State | None = None) -> State:
        """Prepare and run deploy.py, as `pyinfra -y` does; files fetched from hosts are ARCHIVE."""
        state = connected_to or self.connect()
        doubles = patch.multiple(FakeConnector, get_file=_send_archive, run_shell_command=_record)
        held = patch.object(keys, "held_names", lambda _: self.held)
        with ctx_state.use(state), doubles, held, asking(state):
            load_deploy_file(state, "deploy.py")
            run_ops(state)
        return state


def kept(host: str, instance: str, **changes: Any) -> str:
    """The last progress of an activation that ended so."""
    ended = {"outcome": "kept", "serving": "new", "from": "old", "to": "new", "how": "in place"}
    where = {"host": f"@fake/{host}", "instance": instance, "at": "2026-01-01T00:00:00Z"}
    report = {**where, **ended, **changes}
    ok = report["outcome"] == "kept"
    return json.dumps({**ENDED, "ok": ok, "answer": report})


@contextmanager
def asking(state: State) -> Iterator[None]:
    """Send the requests of the activation driver to the fake hosts instead of ssh(1)."""

    def run(way: SshTransport, words: list[str], sent: str, *, seconds: float) -> Ended:
        assert seconds
        if "-c" in words:
            # Gateways are asked by a helper that is sent to them: these are not reached.
            raise UnreachedError(way.name, "not reached", "fix the link")
        fake = state.inventory.get_host(way.name)
        ok, output = fake.run_shell_command(StringCommand(*words), _stdin=sent)
        if not ok:
            raise UnreachedError(way.name, "not reached", "fix the link")
        return Ended(0, (output.stdout or '{"joined": false}').encode(), b"")

    with patch.object(SshTransport, "run", run):
        yield


# Host -> the jobs that it received, as JSON.
_SENT: WeakKeyDictionary[Host, list[str]] = WeakKeyDictionary()
_run_shell_command = FakeConnector.run_shell_command


def _record(connector: FakeConnector, command: Any, **arguments: Any) -> Any:
    if " start " in str(command):
        _SENT.setdefault(connector.host, []).append(arguments["_stdin"])
    return _run_shell_command(connector, command, **arguments)


def _send_archive(_: FakeConnector, _remote: str, local: Any, **_arguments: object) -> bool:
    local.write(ARCHIVE)
    return True


def asked(state: State, name: str) -> list[str]:
    return fakes.asked(state.inventory.get_host(f"@fake/{name}"))


def failed(state: State) -> set[str]:
    return {host.name.removeprefix("@fake/") for host in state.failed_hosts}


def steps(state: State, name: str) -> list[str]:
    """Calls of the installed helper: command, and the job if it is one."""
    pattern = re.compile(r"corral_host\.pyz (\w+)(?: ([\w.-]+))?")
    found = [pattern.search(command) for command in asked(state, name)]
    return [" ".join(filter(None, match.groups())) for match in found if match]


def jobs(state: State, name: str) -> list[str]:
    """Kinds of the jobs for releases that a host received, in order."""
    return [job["kind"] for job in sent(state, name) if "artifact" in job["spec"]]


def sent(state: State, name: str) -> list[Any]:
    """Documents of all jobs that a host received, in order."""
    return [json.loads(text) for text in _SENT.get(state.inventory.get_host(f"@fake/{name}"), [])]


def settled_host(fleet: Fleet, name: str, **changes: Any) -> HostState:
    digest = hashlib.sha256(archive(helper_package(ROOT))).hexdigest()
    state = settled(fleet.plan(name), fleet.digests(name))
    return state.model_copy(update={"helper_sha256": digest, **changes})


def bare_host(fleet: Fleet, name: str, **changes: Any) -> HostState:
    return bare(fleet.plan(name), **changes)
