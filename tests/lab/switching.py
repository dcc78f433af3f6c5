"""Activations of one instance by the helper's own jobs, which are faster than whole deploys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import drop_ins
from tests.lab.waiting import wait_for_end
from tests.lab.workspace import Workspace

HOST, NAME = "lab-1", "tiny-long"
UNIT, SPARE = f"corral-{NAME}.service", f"corral-{NAME}-spare.service"
GUARD = f"corral-guard-{NAME}"
JOB = f"activate-{NAME}"
FOLDER = f"/var/lib/corral/instances/{NAME}"
HELPER = "python3 /usr/local/lib/corral/corral_host.pyz"
PROFILE, VALUE = "catalog/profiles/tiny-long.toml", "context_tokens_per_slot = 8192"
OTHER = 'context_tokens_per_slot = 1024\nready_timeout_seconds = 30\nreasoning_format = "none"'
# An activation must leave nothing behind.
LEFT = f"""
nft list tables | grep corral | grep -v served_by_corral
ls -d {FOLDER}/*.json {FOLDER}/*.new | grep -v receipt.json
find /etc/systemd/system -name '*guard*' -o -name '*spare*' -o -name '*.before' -o -name '*.next'
ls -A /etc/corral/keys/.before 2>/dev/null
ls /run/corral; systemctl list-units --plain --no-legend '*guard*' '*spare*'
"""
_LOAD = """
import http.client, json, sys, threading, time
lines = open("/etc/corral/keys/tiny-long").read().splitlines()
headers = {"Authorization": "Bearer " + [l for l in lines if l and l[0] != "#"][0]}
said = [{"role": "user", "content": "Hi"}]
body = json.dumps({"messages": said, "max_tokens": 24, "stream": True})
good, bad, over = 0, [], threading.Event()

def ask():
    global good
    while not over.is_set():
        link = http.client.HTTPConnection("127.0.0.1", 8002, timeout=20)
        try:
            link.request("POST", "/v1/chat/completions", body, headers)
            answer = link.getresponse()
            text = answer.read()
            assert answer.status == 200 and text.strip().endswith(b"[DONE]"), text[-80:]
            good += 1
        except (OSError, http.client.HTTPException, AssertionError) as fault:
            bad.append(repr(fault))
        finally:
            link.close()
        # Without a pause it would take what processor time there is from what it accompanies.
        time.sleep(0.02)

threads = [threading.Thread(target=ask) for _ in range(2)]
[thread.start() for thread in threads]
sys.stdin.read()
over.set()
[thread.join() for thread in threads]
print(json.dumps({"good": good, "bad": bad}))
"""


@dataclass(frozen=True)
class Switch:
    """An instance with two generations on its host: ``old`` serves, ``new`` is staged."""

    lab: Workspace
    old: dict[str, Any]
    new: dict[str, Any]

    def spec(self, how: str, *, confirm: bool = False, **changes: Any) -> dict[str, Any]:
        """Spec of the job; ``changes``: of the plan's ``activation``."""
        plan = json.loads(json.dumps(self.new))
        instance = next(one for one in plan["instances"] if one["name"] == NAME)
        instance["activation"].update(how=how, **changes)
        plan["shards"] = [one for one in plan["shards"] if one["path"] in instance["shards"]]
        kept = {name: plan[name] for name in ("host", "paths", "instances", "releases", "shards")}
        asked = {"drained": False, "confirm": confirm, "rollout": None}
        return {**kept, "instance": instance, **asked}

    def start(self, spec: dict[str, Any], *, kind: str = "activate", job: str = JOB) -> None:
        """Start the job, which then runs by itself."""
        text = json.dumps({"kind": kind, "spec": spec, "by": "anna on desk", "at": ""})
        self.lab.on(HOST, f"{HELPER} start {job} <<'END'\n{text}\nEND")

    def phase(self) -> str:
        """The phase that the job is in, or nothing."""
        found = self.news()["phase"]
        return str(found["name"]) if found else ""

    def news(self, job: str = JOB) -> dict[str, Any]:
        """The answer of a poll."""
        answer: dict[str, Any] = json.loads(self.lab.on(HOST, f"{HELPER} poll {job} 0"))
        return answer

    def ended(self, job: str = JOB) -> dict[str, Any]:
        """The report, once the job is over."""
        wait_for_end(self.lab, HOST, job, "the activation ends")
        answer: dict[str, Any] = self.news(job)["answer"]
        return answer

    def activate(self, how: str, **changes: Any) -> dict[str, Any]:
        """Switch and return the report."""
        self.start(self.spec(how, **changes))
        return self.ended()

    def revert(self, to: str | None = None) -> dict[str, Any]:
        """Revert as an operator and return the report."""
        kept = {name: self.new[name] for name in ("host", "paths")}
        asked = {"drained": False, "confirm": False, "rollout": None}
        self.start({**kept, "instance": NAME, "to": to, **asked}, kind="revert")
        return self.ended()

    def history(self) -> list[dict[str, Any]]:
        """Reports of the instance, newest first."""
        paths = json.dumps(self.new["paths"])
        found = json.loads(self.lab.on(HOST, f"{HELPER} history '{paths}'"))
        return [one for one in found if one["instance"] == NAME]

    def pid(self) -> int:
        """Pid of the server."""
        return self.lab.pid(HOST, NAME)

    def serves(self, plan: dict[str, Any]) -> bool:
        """Whether this generation runs as planned and answers, and nothing is left of a switch."""
        mine = {**plan, "instances": [one for one in plan["instances"] if one["name"] == NAME]}
        text = json.dumps(mine)
        checks = json.loads(self.lab.on(HOST, f"{HELPER} check '{text}'"))
        left = self.lab.try_on(HOST, LEFT).stdout
        assert left == "", left
        wanted = f"generations/{mine['instances'][0]['generation']}"
        assert self.lab.on(HOST, f"readlink {FOLDER}/current") == wanted
        return all(row["ok"] for row in checks)

    @contextmanager
    def load(self) -> Iterator[dict[str, Any]]:
        """Load of streamed completions; at its end: good (a count), bad (faults)."""
        command = ["ssh", "-F", str(self.lab.layout.ssh_config), HOST]
        self.lab.on(HOST, f"cat > /root/load.py <<'END'\n{_LOAD}\nEND")
        found: dict[str, Any] = {}
        with subprocess.Popen(
            [*command, "python3 /root/load.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        ) as asking:  # fmt: skip
            try:
                yield found
            finally:
                told, _ = asking.communicate("")
        found.update(json.loads(told))


def planned(lab: Workspace) -> dict[str, Any]:
    """The plan of the host, without the text of files."""
    done = lab.corral("plan", HOST, "--json", "-i", "inventories/lab.py")
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def stage(lab: Workspace, plan: dict[str, Any]) -> dict[str, Any]:
    """Stage the generation; returns the plan for jobs and checks."""
    for one in plan["instances"]:
        if one["name"] == NAME:
            lab.on(HOST, f"{HELPER} stage <<'END'\n{json.dumps(one)}\nEND")
    for one in plan["instances"]:
        del one["unit_text"], one["chat_template"]
    return plan


@contextmanager
def two_generations(lab: Workspace) -> Iterator[Switch]:
    """Stage another generation; at the end the first one serves again."""
    old = stage(lab, planned(lab))
    with lab.edited(PROFILE, VALUE, OTHER):
        new = stage(lab, planned(lab))
    yield Switch(lab, old, new)


@contextmanager
def moved(switch: Switch, port: int) -> Iterator[Switch]:
    """Like two_generations, but the other generation is the first one on another port."""
    lab, entry = switch.lab, '"profile": "tiny-long", "port": 8002'
    with lab.edited("inventories/lab.py", entry, entry.replace("8002", str(port))):
        new = stage(lab, planned(lab))
    yield Switch(lab, switch.old, new)


@contextmanager
def drop_in(lab: Workspace, unit: str, line: str) -> Iterator[None]:
    """Add a line to a unit's [Service], until the block ends or the host loses power."""
    lab.on(HOST, f"{drop_ins.lay([unit], line)} && systemctl daemon-reload")
    try:
        yield
    finally:
        lab.on(HOST, drop_ins.lift([unit]))
