"""A host for the helper's `prove`: stand-ins for systemctl, nvidia-smi and llama-fit-params."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.fit.headers import HeaderStore
from corral.host.fit_verdict import Verdict
from corral.inventory.hosts import parse_host
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.placement import DeviceNeed, InstanceNeed
from corral.planning.load import load_planner
from corral.project import helper_package
from corral.remote.helper_archive import archive
from tests.samples import EXAMPLES, ROOT

CHAT: dict[str, Any] = {"name": "chat", "profile": "tiny-chat", "port": 8001}
SHARDED: dict[str, Any] = {**CHAT, "quant": "F16"}
GPUS = {
    "name": "NVIDIA A100-PCIE-40GB",
    "count": 2,
    "compute_capability": "8.0",
    "memory_mib": 40960,
}
ON_GPUS: dict[str, Any] = {"gpus": GPUS, "backend": "cuda"}
NEED = DeviceNeed(weights_mib=20000, kv_mib=2000, compute_mib=900, runtime_mib=736)
# Writes down how it was called and what its model looks like, then answers as it is told.
_TOOL = """#!/usr/bin/env -S python3 -IS
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
answer = json.loads((here / "answer.json").read_text())
time.sleep(answer["seconds"])
model = pathlib.Path(sys.argv[sys.argv.index("--model") + 1])
files = {}
for path in sorted(model.parent.iterdir()):
    found = path.stat()
    files[path.name] = [found.st_size, found.st_blocks * 512, path.is_symlink()]
called = {"argv": sys.argv, "environment": dict(os.environ), "files": files}
(here / "called.json").write_text(json.dumps(called))
print(answer["rows"])
print(answer["logs"][0], file=sys.stderr)
answer["logs"] = answer["logs"][1:] or answer["logs"]
(here / "answer.json").write_text(json.dumps(answer))
sys.exit(answer["code"])
"""


@dataclass(frozen=True)
class ProofHost:
    """All of it below ``root``; ``hub_url`` is where the weights are."""

    root: Path
    hub_url: str

    def plan(self, *instances: dict[str, Any], **data: Any) -> HostPlan:
        """The plan for a host with these instances of the catalog, with the hub's own headers."""
        paths = HostPaths(engines=str(self.root / "engines"), state=str(self.root / "state"))
        changes = {"paths": paths, "headers": HeaderStore(self.root / "headers")}
        here = {"hub_url": self.hub_url, **data, "instances": list(instances)}
        return (
            load_planner(EXAMPLES).model_copy(update=changes).plan_host(parse_host("lab-1", here))
        )

    def gpus(self, *free_mib: int) -> None:
        """GPUs 0, 1, ... of 40960 MiB with so much free; nobody holds any of it."""
        rows = [
            f"{n}, NVIDIA A100, GPU-{n}, 00000000:0{n}:00.0, 580.95, Enabled, 40960, {free}, 8.0, "
            "0, Default, Disabled"
            for n, free in enumerate(free_mib)
        ]
        answer = "case $1 in --query-gpu*) printf '%s\\n'"
        self._program("nvidia-smi", f"#!/bin/sh\n{answer} {' '.join(map(repr, rows))};; esac\n")

    def tool(
        self,
        plan: HostPlan,
        rows: str = "Host 1 1 1 ",
        *,
        logs: Sequence[str] = ("",),
        code: int = 0,
        seconds: float = 0,
    ) -> None:
        """What the release's llama-fit-params answers; its calls have their logs in turn."""
        folder = Path(plan.releases[0].folder) / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        answer = {"rows": rows, "logs": list(logs), "code": code, "seconds": seconds}
        (folder / "answer.json").write_text(json.dumps(answer))
        (folder / "llama-fit-params").write_text(_TOOL)
        (folder / "llama-fit-params").chmod(0o755)

    def called(self, plan: HostPlan) -> Any:
        """How llama-fit-params was called last."""
        return json.loads((Path(plan.releases[0].folder) / "bin" / "called.json").read_text())

    def start(self, plan: HostPlan, waiting: Sequence[str]) -> subprocess.Popen[str]:
        """The helper, with its document on the way."""
        self._program("systemctl", "#!/bin/sh\necho MainPID=0\n")
        helper = self.root / "corral_host.pyz"
        if not helper.exists():
            helper.write_bytes(archive(helper_package(ROOT)))
        running = subprocess.Popen(
            [sys.executable, "-IS", helper, "prove"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={
                "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
                "LLAMA_ARG_CTX_SIZE": "1",
            },
        )  # fmt: skip
        assert running.stdin
        running.stdin.write(json.dumps({**json.loads(plan.to_helper()), "waiting": list(waiting)}))
        running.stdin.close()
        running.stdin = None
        return running

    def prove(self, plan: HostPlan, waiting: Sequence[str] = ("chat",)) -> list[Verdict]:
        """The verdicts; nothing may be left behind."""
        running = self.start(plan, waiting)
        output, log = running.communicate(timeout=120)
        assert running.returncode == 0, log
        assert list((self.root / "state" / "proofs").iterdir()) == []
        return [Verdict.model_validate(row) for row in json.loads(output)]

    def _program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o755)


def with_need(
    plan: HostPlan, *gpus: DeviceNeed, host: DeviceNeed | None = None, unknown: str = ""
) -> HostPlan:
    """The plan, with each instance needing this on its GPUs and on the host."""
    need = InstanceNeed(gpus=gpus, host=host, unknown=unknown)
    return with_instances(plan, need=need)


def with_instances(plan: HostPlan, **changes: Any) -> HostPlan:
    """The plan, with these fields of its instances replaced."""
    instances = tuple(i.model_copy(update=changes) for i in plan.instances)
    return plan.model_copy(update={"instances": instances})
