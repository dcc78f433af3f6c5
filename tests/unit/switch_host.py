"""A host for activations without systemd and nftables: both are played, files are real."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

tools = helper_module("system.commands")
HostError = tools.HostError
MODULES = {
    name.rpartition(".")[2]: helper_module(name)
    for name in (
        "activation.activate",
        "activation.as_it_runs",
        "activation.record",
        "activation.preconditions",
        "activation.confirm",
        "checks.gate",
        "checks.ready",
        "activation.watchdog",
        "instance.history",
        "system.locks",
        "activation.in_place",
        "packets.redirect",
        "activation.side_by_side",
        "activation.start_again",
        "activation.revert",
        "activation.switch",
        "activation.journal",
        "activation.rollback",
    )
}
UNIT, SPARE, GUARD = "corral-chat.service", "corral-chat-spare.service", "corral-guard-chat"


class Killed(BaseException):
    """What a SIGKILL is to the code that it ends."""


@dataclass
class Unit:
    """A server that runs: its unit and its keys when it was started, and which start that was."""

    text: str
    invocation: str
    keys: str


@dataclass
class Host:
    """``bad``: what a unit's text must not have to pass the gate; ``steps``: what was asked.

    ``die_at``: the step at which the process is killed; ``full_from``: the write from which on the
    disk is full; ``in_flight``: what draining finds; ``obstacles``: what each look at the port
    finds; ``away``: so many looks find no address; ``hung``: servers hear no signal but SIGKILL;
    ``ports``: of generations that are not on 8001; ``watch``: called at each step.
    """

    root: Path
    running: dict[str, Unit] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    steps: list[str] = field(default_factory=list)
    bad: tuple[str, ...] = ()
    in_flight: int = 0
    die_at: int | None = None
    full_from: int | None = None
    writes: int = 0
    starts: itertools.count[int] = field(default_factory=itertools.count)
    obstacles: list[str] = field(default_factory=list)
    away: int = 0
    hung: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    rules: str = ""
    watch: Callable[[], object] = lambda: None

    @property
    def units(self) -> Path:
        return self.root / "units"

    @property
    def folder(self) -> Path:
        return self.root / "state" / "instances" / "chat"

    def step(self, what: str) -> None:
        """One thing that is done to the host; it may be the last."""
        if self.die_at == len(self.steps):
            raise Killed
        self.steps.append(what)
        self.watch()

    def systemctl(self, *words: str) -> str:
        verb, unit = words[0], words[-1]
        self.step(" ".join(words))
        if verb in ("restart", "start") and (self.units / unit).exists():
            text = (self.units / unit).read_text()
            self.running[unit] = Unit(text, f"start-{next(self.starts)}", self.keys())
        if verb == "kill" or (verb == "stop" and not (self.hung and unit == UNIT)):
            self.running.pop(unit, None)
        if verb == "enable":
            self.enabled.add(unit)
        if verb == "disable":
            self.enabled.discard(unit)
        return ""

    def output(self, *command: str) -> str:
        return self.systemctl(*command[1:])

    def show(self, unit: str, *_: str) -> dict[str, str]:
        runs = self.running.get(unit)
        state = "active" if runs else "inactive"
        start = runs.invocation if runs else ""
        return {"ActiveState": state, "InvocationID": start, "MainPID": "0"}

    def gate(self, instance: dict[str, Any], *_: object) -> list[dict[str, Any]]:
        self.step(f"gate {instance['unit']}")
        runs = self.running.get(instance["unit"])
        if (
            self.away
            or runs is None
            or any(word in f"{runs.text}{instance['unit']}" for word in self.bad)
        ):
            raise HostError("the gate failed")
        return [{"part": "ready", "ok": True, "figure": "", "limit": "", "detail": ""}]

    def wait_ready(self, instance: dict[str, Any]) -> None:
        """Dies at its start for as long as another program holds the port."""
        self.step(f"wait for {instance['unit']}")
        if self.obstacles:
            raise MODULES["ready"].DiedError("the server died at start: couldn't bind")

    def nft(self, rules: str, *_: str) -> subprocess.CompletedProcess[str]:
        self.step("nft")
        verb = "discard" if "delete table" in rules else "add"
        getattr(self.tables, verb)("chat")
        self.rules = rules
        return subprocess.CompletedProcess([], 0, "", "")

    def drain(self, server: dict[str, Any], *_: object, **__: object) -> int:
        self.step(f"drain {server['unit']}")
        return self.in_flight

    def reached(self, port: int) -> bool:
        """Whether a new connection to a port ends at a server, sent on or not."""
        rules = [line.partition(" leaving ")[2] for line in self.rules.splitlines()]
        acts = rules[: rules.index("accept")] if "accept" in rules else rules
        where = re.compile(rf"tcp dport {port} .* to \S*:(\d+)$")
        sent = [match for rule in acts if (match := where.search(rule))] if self.tables else []
        servers = [unit for unit in (UNIT, SPARE) if unit in self.running]
        return (int(sent[0][1]) if sent else port) in map(self.listens, servers)

    def listens(self, unit: str) -> int:
        """The port of a server that runs."""
        generation = self.running[unit].text.partition("X-Corral-Generation=")[2][0]
        end = self.plan(generation)
        return int((end["activation"]["spare"] if unit == SPARE else end)["endpoint"]["port"])

    def next_obstacle(self) -> str | None:
        """What holds the port, as long as something does."""
        return self.obstacles.pop(0) if self.obstacles else None

    def next_look(self) -> str | None:
        """Why the host has no address, as long as its cable is pulled."""
        self.away = max(0, self.away - 1)
        return "Cannot assign requested address" if self.away else None

    def keys(self) -> str:
        """What a start of the server reads."""
        return (self.root / "key").read_text()

    def loaded(self, instance: dict[str, Any]) -> str | None:
        """What a running server read when it was started."""
        runs = self.running.get(instance["unit"])
        return runs.keys if runs else None

    def stage_keys(self, text: str) -> None:
        """As a deploy does for an instance that has a unit."""
        place = {"key_path": str(self.root / "key"), "unit_path": str(self.units / UNIT)}
        helper_module("activation.staging").write_key(place, text)

    def serving(self) -> str | None:
        """The generation of the server that runs, if it runs from the files that are there."""
        runs = self.running.get(UNIT)
        path = self.units / UNIT
        if runs is None or not path.exists() or runs.text != path.read_text():
            return None
        if runs.keys != self.keys():
            return None
        found: str | None = helper_module("instance.unit_file").installed_generation(path)
        return found

    def left(self) -> list[str]:
        """What an activation must not leave behind."""
        found = [path.name for path in self.units.iterdir() if path.name != UNIT]
        found += [path.name for path in self.folder.rglob("*.new")]
        found += [path.name for path in self.folder.glob("*.json") if path.stem != "receipt"]
        found += sorted(self.tables)
        found += [str(path) for path in (self.root / ".before").glob("*")]
        return found + [unit for unit in (*self.running, *self.enabled) if unit != UNIT]

    def plan(self, generation: str, how: str = "auto") -> dict[str, Any]:
        port = self.ports.get(generation, 8001)
        end = {"address": "127.0.0.1", "port": port, "socket": None}
        spare = {
            "unit": SPARE, "unit_path": str(self.units / SPARE), "argv": ["s"],
            "unit_text": f"[Unit]\nX-Corral-Generation={generation}\n# spare\n",
            "endpoint": {**end, "port": port + 10000},
        }  # fmt: skip
        times = {"drain_seconds": 1, "confirm_seconds": 1}
        return {
            "name": "chat", "unit": UNIT, "unit_path": str(self.units / UNIT),
            "folder": str(self.folder), "generation": generation, "endpoint": end,
            "argv": [f"{self.root}/engines/e/k/bin/s"], "shards": [], "release": "k",
            "key_path": str(self.root / "key"), "ready_timeout_seconds": 5,
            "gate": {"soak_seconds": 0, "speed": None, "perplexity": None, "golden": []},
            "activation": {"how": how, "spare": spare, **times}, "metrics": False,
        }  # fmt: skip

    def stage(self, generation: str) -> None:
        folder = self.folder / "generations" / generation
        folder.mkdir(parents=True)
        (folder / "unit").write_text(f"[Unit]\nX-Corral-Generation={generation}\n")
        (folder / "plan.json").write_text(json.dumps(self.plan(generation)))

    def serve(self, generation: str) -> None:
        """As if this generation had been activated long ago."""
        (self.units / UNIT).write_text((self.folder / f"generations/{generation}/unit").read_text())
        (self.folder / "current").symlink_to(f"generations/{generation}")
        with MODULES["locks"].held(self.root / "state/locks/activate.lock", "anna", "serving it"):
            pass
        self.systemctl("enable", UNIT)
        self.systemctl("start", UNIT)
        self.steps.clear()

    def spec(self, generation: str, **changes: Any) -> dict[str, Any]:
        plan = self.plan(generation)
        paths = {
            "units": str(self.units), "state": str(self.root / "state"), "helper": "/helper.pyz",
        }  # fmt: skip
        return {
            "host": "node-1", "paths": paths, "instance": plan, "instances": [plan],
            "releases": [], "shards": [], "drained": False, "confirm": False, "rollout": None,
            **changes,
        }  # fmt: skip

    def settle(self) -> dict[str, Any] | None:
        """What ExecStopPost= does; nothing kills it, the disk may still be full."""
        self.die_at = None
        found: dict[str, Any] | None = MODULES["rollback"].settle(*self._guarded)
        return found

    @property
    def _guarded(self) -> tuple[str, str]:
        return str(self.folder), str(self.units)

    def reboot(self) -> None:
        """Enabled units are started from their files, the guard among them; rules are gone."""
        self.die_at = None
        self.tables.clear()
        self.running.clear()
        for unit in [unit for unit in self.enabled if "guard" not in unit]:
            if (self.units / unit).exists():
                text = (self.units / unit).read_text()
                self.running[unit] = Unit(text, "of this boot", self.keys())
        if f"{GUARD}.service" in self.enabled and (self.units / f"{GUARD}.service").exists():
            MODULES["rollback"].guard(*self._guarded)

    def _refuse_when_full(self, path: str) -> None:
        if str(self.root / "run") in path:
            return
        self.writes += 1
        if self.full_from is not None and self.writes > self.full_from:
            raise OSError(errno.ENOSPC, "No space left on device", path)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """See `play`."""
    return play(tmp_path, monkeypatch)


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **ports: int) -> Host:
    """Old generation ``a`` serves, ``b`` is staged; how to switch is said by `choose`."""
    host = Host(tmp_path, ports=ports)
    for folder in (host.units, host.folder, tmp_path / "run"):
        folder.mkdir(parents=True)
    (tmp_path / "key").write_text("old")
    (tmp_path / "key").chmod(0o600)
    for generation in ("a", "b"):
        host.stage(generation)
    host.serve("a")
    doubles = {
        "output": host.output, "quiet": host.systemctl, "show": host.show, "gate": host.gate,
        "wait_ready": host.wait_ready, "obstacle": lambda _: host.next_obstacle(),
        "missing_address": lambda _: host.next_look(),
        "before_start": lambda _: [], "keep_baseline": lambda *_: None,
        "drain": host.drain, "journal_tail": lambda _: "its last words",
        "refuse_going_down": lambda: None, "loaded": host.loaded, "RUN": tmp_path / "run",
        "instance_state": lambda *_, **__: {
            "installed_generation": host.serving(), "active": "active", "serves": False,
        },
    }  # fmt: skip
    for module in MODULES.values():
        for name, double in doubles.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, double)
    monkeypatch.setattr(MODULES["switch"], "END_SECONDS", 0.05)
    monkeypatch.setattr(MODULES["start_again"], "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(MODULES["redirect"], "ask", host.nft)
    monkeypatch.setattr(MODULES["redirect"].shutil, "which", lambda _: "/nft")
    monkeypatch.setattr(MODULES["preconditions"], "findings", lambda _: ([], []))
    monkeypatch.setattr(MODULES["preconditions"], "refuse_broken", lambda _: None)
    _watch_writes(host, monkeypatch)
    return host


def _watch_writes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, linked = os.open, Path.symlink_to

    def open_(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            host._refuse_when_full(str(path))
        return opened(path, flags, mode, **more)

    def symlink_to(path: Path, target: str) -> None:
        host._refuse_when_full(str(path))
        linked(path, target)

    monkeypatch.setattr(tools.os, "open", open_)
    monkeypatch.setattr(tools.os, "fsync", lambda _: None)
    monkeypatch.setattr(Path, "symlink_to", symlink_to)


def choose(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The way to switch, as the checks would have found it."""
    monkeypatch.setattr(MODULES["preconditions"], "decide", lambda *_: how)
    if how == "first":
        monkeypatch.setattr(MODULES["preconditions"], "served_before", lambda _: None)
