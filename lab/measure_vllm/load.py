"""Which serves more on two GPUs: one server on both, or one on each behind the gateway?

    PYTHONPATH=.:files python -m lab.measure_vllm.load OUT --haproxy FOLDER --for-seconds 500

Both are asked through HAProxy with the configuration that Corral writes, by the client of
`corral bench --load`. FOLDER has the program `haproxy` and its libraries. OUT gets ``load.jsonl``,
one line for each measurement as soon as it has ended, and ``load-logs.txt``. Beside the rest of
this folder it needs pydantic, openai, httpx2, jinja2 and platformdirs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.bench.load.completions import Target
from corral.bench.load.generator import first_answer, measure
from corral.engines import engine_module
from corral.engines.load import LoadCase
from corral.gateway.files import CONFIG, gateway_files
from corral.inventory.hosts import parse_host
from corral.paths import HostPaths
from corral.plan.gateway import FULL_WEIGHT, GatewayPlan, Member, Pool
from corral.project import project_root
from corral.store.gateway_keys import client_name, upstream_name
from lab.measure_vllm import gpus
from lab.measure_vllm.models import write_model
from lab.measure_vllm.server import KEYS, Server
from lab.measure_vllm.settings import Setting, loaded

_ENGINE = engine_module("vllm")
_ALIAS = "measured"
_GATEWAY_PORT = 18080
_READY_S, _LISTEN_S, _LEVEL_S, _FREE_S = 200.0, 20.0, 60.0, 30.0
_FREE_MIB = 1000
_TOKENS = list(range(1, 200))
# Concurrent requests -> prompts; each has 1000 tokens, and its answer 200.
_PROMPTS = {1: 8, 16: 96, 64: 320}
_INPUT_TOKENS, _OUTPUT_TOKENS = 1000, 200


@dataclass(frozen=True)
class Run:
    """What both ways to serve share."""

    out: Path
    folder: Path
    haproxy: Path
    deadline: float

    def start(self, setting: Setting, port: int, gpu: int | None = None) -> Server:
        """A server that imports, and waits to be let go."""
        return Server(setting, self.folder, writable_code=False, extra=[], port=port, gpu=gpu)


def main() -> None:
    """Measure two servers, then one on both GPUs; the latter imports meanwhile."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--haproxy", type=Path, required=True)
    parser.add_argument("--for-seconds", type=float, default=500)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        deadline = time.monotonic() + options.for_seconds
        run = Run(options.out, folder, options.haproxy.absolute(), deadline)
        setting = loaded("one")
        write_model(setting.model, folder / setting.model)
        two = [run.start(loaded(f"load-{gpu}"), 18001 + gpu, gpu) for gpu in (0, 1)]
        one = run.start(loaded("load-tp2", tp=2), 18003)
        try:
            _serve(run, "two instances", two)
            _wait_for_free_gpus()
            _serve(run, "tensor parallel 2", [one])
        finally:
            _end(run, [*two, one])


def _serve(run: Run, name: str, servers: list[Server]) -> None:
    """Let servers start, measure them behind the gateway, and end them."""
    begun = [server.go() for server in servers][0]
    ready = [server.wait_until_ready(begun + _READY_S) for server in servers]
    print(f"{name}: ready {ready} after {time.monotonic() - begun:.1f} s", flush=True)
    if all(ready):
        with _gateway(run, servers) as target:
            first_answer(target, _TOKENS, where=name, next_step="read load-logs.txt")
            # Once unmeasured: Triton compiles a kernel when it is first needed.
            _measure(run, f"{name}, first", target, 16, 32)
            for level, prompts in _PROMPTS.items():
                if time.monotonic() + _LEVEL_S < run.deadline:
                    _measure(run, name, target, level, prompts)
    for server in servers:
        server.kill()


def _measure(run: Run, name: str, target: Target, level: int, prompts: int) -> None:
    case = LoadCase(
        input_tokens=_INPUT_TOKENS,
        output_tokens=_OUTPUT_TOKENS,
        num_prompts=prompts,
        max_concurrency=level,
    )
    found = measure(target, case, _TOKENS, limit_seconds=_LEVEL_S, print_line=print)
    figures = found.run
    row = {"served_by": name, "client_load": found.client_load, **figures.model_dump(mode="json")}
    with (run.out / "load.jsonl").open("a") as rows:
        rows.write(json.dumps(row) + "\n")
    print(
        f"{time.strftime('%T')} {name}: {level} at a time, {figures.completed} of {prompts} in "
        f"{figures.duration:.1f} s, {figures.output_throughput:.0f} tokens/s, first token "
        f"{figures.median_ttft_ms or 0:.0f} ms, each further {figures.median_tpot_ms or 0:.1f} ms "
        f"{figures.failures}",
        flush=True,
    )


@contextlib.contextmanager
def _gateway(run: Run, servers: list[Server]) -> Iterator[Target]:
    """HAProxy in front of the servers, with Corral's configuration."""
    names = [f"server-{server.port}" for server in servers]
    pool = Pool(
        alias=_ALIAS,
        name=_ALIAS,
        port=_GATEWAY_PORT,
        members=tuple(
            Member(
                name=f"{name}/chat",
                server=name,
                address="127.0.0.1",
                port=server.port,
                weight=FULL_WEIGHT,
            )
            for name, server in zip(names, servers, strict=True)
        ),
        open=_ENGINE.routes.open,
        closed=tuple(_ENGINE.routes.closed),
        health=_ENGINE.routes.health,
    )
    config = _write_files(run, pool)
    program = run.haproxy / "haproxy"
    with (run.folder / "logs" / "haproxy.log").open("ab") as log:
        process = subprocess.Popen(
            [str(program), "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "LD_LIBRARY_PATH": str(run.haproxy)},
        )
    try:
        _wait_until_it_listens()
        yield Target(
            url=f"http://127.0.0.1:{_GATEWAY_PORT}",
            key=KEYS[1],
            alias=_ALIAS,
            fields=_ENGINE.load_fields,
        )
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_listens() -> None:
    until = time.monotonic() + _LISTEN_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", _GATEWAY_PORT), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"HAProxy does not listen on port {_GATEWAY_PORT}")


def _write_files(run: Run, pool: Pool) -> Path:
    """The gateway's generation; returns its configuration."""
    keys = run.folder / "keys" / "gateway"
    keys.mkdir(parents=True, exist_ok=True)
    for name, key in ((client_name(pool), KEYS[1]), (upstream_name(pool), KEYS[0])):
        (keys / name).write_text(f"{key}\n")
        (keys / name).chmod(0o600)
    host = parse_host("gateway", {"keys_folder": str(keys.parent)})
    plan = GatewayPlan(
        folder=str(run.folder / "gateway"),
        address="127.0.0.1",
        metrics_port=None,
        tls=False,
        pools=(pool,),
    )
    templates = project_root() / "templates"
    files = gateway_files(host, plan, paths=HostPaths(), templates=templates)
    folder = run.folder / "gateway" / files.generation
    folder.mkdir(parents=True)
    for name, text in files.files.items():
        (folder / name).write_text(text)
    return folder / CONFIG


def _wait_for_free_gpus() -> None:
    until = time.monotonic() + _FREE_S
    while time.monotonic() < until and max(used for used, _ in gpus.memory_mib()) > _FREE_MIB:
        time.sleep(0.3)


def _end(run: Run, servers: list[Server]) -> None:
    for server in servers:
        server.kill()
    with (run.out / "load-logs.txt").open("a") as logs:
        for log in sorted((run.folder / "logs").iterdir()):
            logs.write(f"\n======== {log.name}\n{log.read_text(errors='replace')[-1_000_000:]}")


if __name__ == "__main__":
    main()
