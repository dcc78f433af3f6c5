"""Measure what vLLM says of its memory, setting by setting.

    python -m lab.measure_vllm OUT --for-seconds 560 [--gpus 2] [--only air,air-mtp] [--tiny]

OUT gets ``rows.jsonl``, one line for each server as soon as it has stopped, and ``logs.txt``.
Settings that OUT has already are left out, so the command can be given again until it has all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.measure_vllm import figures, gpus, server
from lab.measure_vllm.killed import kill_rank
from lab.measure_vllm.models import MODELS, write_model
from lab.measure_vllm.settings import SETTINGS, TWO_GPU_SETTINGS, Setting

_EAGER_S = 150.0
_COMPILED_S = 230.0
_STOP_S = 50.0
_PROMPT_TOKENS = 6000
_STREAM_TOKENS = 400
_SHOWN = ("ready_s", "weights_gib", "kv_gib", "kv_tokens", "held_ready_mib", "failed", "error")


@dataclass(frozen=True)
class Run:
    """What all settings share."""

    out: Path
    folder: Path
    deadline: float
    gpu: bool
    writable_code: bool
    extra: tuple[str, ...]

    def start(self, setting: Setting) -> server.Server:
        """A server of this setting: one that is imported before waits to be let go."""
        return server.Server(
            setting, self.folder, writable_code=self.writable_code, extra=list(self.extra)
        )


def main() -> None:
    """Measure every setting that is asked for and not there yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--for-seconds", type=float, default=560)
    parser.add_argument("--gpus", type=int, choices=(1, 2), default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--writable-code", action="store_true", help="without PR_SET_MDWE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        for name in MODELS:
            write_model(name, Path(folder) / name, tiny=options.tiny)
        run = Run(
            out=options.out,
            folder=Path(folder),
            deadline=time.monotonic() + options.for_seconds,
            gpu=not options.tiny,
            writable_code=options.writable_code or options.tiny,
            extra=("--dtype", "bfloat16", "--max-num-seqs", "8") if options.tiny else (),
        )
        settings = TWO_GPU_SETTINGS if options.gpus == 2 else SETTINGS
        wanted = _wanted(options.out, settings, options.only, tiny=options.tiny)
        measure_all(run, wanted)


def _wanted(
    out: Path, settings: tuple[Setting, ...], only: str, *, tiny: bool
) -> Iterator[Setting]:
    rows = out / "rows.jsonl"
    lines = rows.read_text().splitlines() if rows.exists() else []
    there = {json.loads(line)["name"] for line in lines}
    chosen = only.split(",") if only else [setting.name for setting in settings]
    by_name = {setting.name: setting for setting in settings}
    for name in chosen:
        setting = by_name[name]
        if tiny:
            setting = replace(setting, max_model_len=1024, utilization=0.1, eager=True)
        if name not in there:
            yield setting


def measure_all(run: Run, settings: Iterator[Setting]) -> None:
    """One after another; the next one imports while the one before it is measured."""
    waiting = list(settings)
    upcoming: server.Server | None = None
    failures = 0
    while waiting and time.monotonic() + _STOP_S < run.deadline and failures < 3:
        setting, *waiting = waiting
        current, upcoming = upcoming or run.start(setting), None
        row: dict[str, Any] = {"name": setting.name, **_of_setting(setting)}
        try:
            if waiting and waiting[0].imported_before:
                upcoming = run.start(waiting[0])
            measure(run, setting, current, row)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            row["failed"] = repr(error)
        current.kill()
        row |= figures.read_log(current.log.read_text(errors="replace"))
        _keep(run, setting, current, row)
        failures = 0 if row.get("ready_s") or "longest_that_fits" in row else failures + 1
        _wait_for_free_gpu(run)
    if upcoming:
        upcoming.kill()


def measure(run: Run, setting: Setting, current: server.Server, row: dict[str, Any]) -> None:
    """Let it start, ask it, stop it; the row gets each thing as soon as it is known."""
    if run.gpu:
        memory = gpus.memory_mib()
        row |= {"gpu_mib": memory[0][1], "used_before_mib": [used for used, _ in memory]}
    begun = current.go()
    limit_s = _EAGER_S if setting.eager else _COMPILED_S
    ready = current.wait_until_ready(min(begun + limit_s, run.deadline - 15))
    seconds = round(time.monotonic() - begun, 1)
    row |= {"ready_s": seconds} if ready else {"not_ready_after_s": seconds}
    if ready:
        row |= _held(run, "ready")
        row |= _ask(setting)
        row |= _held(run, "after")
        row |= {"rank": kill_rank(current)} if setting.rank_killed else _stop(setting, current)
    row["exit_code"] = current.process.poll()


def _of_setting(setting: Setting) -> dict[str, Any]:
    values = asdict(setting)
    return {key: values[key] for key in values if key not in ("name", "stop_with_stream")}


def _held(run: Run, when: str) -> dict[str, Any]:
    if not run.gpu:
        return {}
    processes = gpus.processes()
    held = gpus.held_mib(processes)
    return {
        f"held_{when}_mib": max(held, default=0),
        f"held_{when}_mib_by_gpu": held,
        f"used_{when}_mib": [used for used, _ in gpus.memory_mib()],
        f"processes_{when}": processes,
    }


def _ask(setting: Setting) -> dict[str, Any]:
    """Completions with each key and without a right one, a long prompt, and /metrics."""
    long = [1 + number % 200 for number in range(min(_PROMPT_TOKENS, setting.max_model_len // 2))]
    statuses = {
        "key_1": server.complete("Hello", 8, server.KEYS[0]),
        "key_2": server.complete("Hello", 8, server.KEYS[1]),
        "wrong_key": server.complete("Hello", 8, "another"),
        "no_key": server.complete("Hello", 8, None),
        "long_prompt": server.complete(long, 64),
        "health": server.status("/health"),
        "models": server.status("/v1/models", key=server.KEYS[0]),
        "invocations_no_key": server.status(
            "/invocations", {"model": "measured", "prompt": "Hello", "max_tokens": 4}
        ),
    }
    metrics = server.text("/metrics")
    drafted = figures.total(metrics, "vllm:spec_decode_num_draft_tokens_total")
    accepted = figures.total(metrics, "vllm:spec_decode_num_accepted_tokens_total")
    return {
        "statuses": statuses,
        "cache_config_info": figures.labels(metrics, "vllm:cache_config_info"),
        "kv_blocks_by_engine": figures.label_of_each(
            metrics, "vllm:cache_config_info", "num_gpu_blocks"
        ),
        "metric_names": figures.names(metrics),
        "mtp_drafted": drafted,
        "mtp_accepted": accepted,
    }


def _stop(setting: Setting, current: server.Server) -> dict[str, Any]:
    stream = server.Stream(_STREAM_TOKENS) if setting.stop_with_stream else None
    if stream:
        stream.start()
        stream.begun.wait(30)
    before = stream.events if stream else 0
    seconds, code = current.terminate(_STOP_S)
    found: dict[str, Any] = {"stop_s": round(seconds, 1), "stop_code": code}
    if stream:
        stream.join(10)
        found["stream"] = {
            "events_before_sigterm": before,
            "events": stream.events,
            "whole": stream.whole,
            "error": stream.error,
        }
    return found


def _keep(run: Run, setting: Setting, current: server.Server, row: dict[str, Any]) -> None:
    with (run.out / "rows.jsonl").open("a") as rows:
        rows.write(json.dumps(row) + "\n")
    with (run.out / "logs.txt").open("a") as logs:
        logs.write(f"\n======== {setting.name}\n{current.log.read_text(errors='replace')}")
    shown = {key: row[key] for key in _SHOWN if key in row}
    print(time.strftime("%T"), setting.name, shown, flush=True)


def _wait_for_free_gpu(run: Run) -> None:
    """Until the memory of the server before has come back."""
    until = min(time.monotonic() + 20, run.deadline)
    while (
        run.gpu and time.monotonic() < until and max(used for used, _ in gpus.memory_mib()) > 1000
    ):
        time.sleep(0.3)


if __name__ == "__main__":
    main()
