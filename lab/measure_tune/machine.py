"""One run on this machine, as the host's job makes it. Standard library alone."""

from __future__ import annotations

import json
import lzma
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# Written for hosts, without types.
engines, tune, tune_child = (
    import_module(f"corral_host.{name}") for name in ("engines", "bench.tune", "bench.tune_child")
)

BOOT = Path("/proc/sys/kernel/random/boot_id")
_READY_SECONDS, _RUN_SECONDS = 180, 300
# Ids of the model's vocabulary that are words, of which prompts are made.
_TOKENS = range(1000, 50000)
_TOKENS_OF_A_RUN = 4000
_SHOWN = 1500


@dataclass(frozen=True)
class Machine:
    """Where programs and the model are; ``document``: what the settings were written with."""

    programs: Path
    model: Path
    document: dict[str, Any]
    gpu: int = 0

    def run(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Start a server, ask it and stop it: the fields of a row that a run has."""
        began, before = time.time(), self._moment()
        figures, error = self._figures(setting)
        return {
            "began": began,
            "seconds": round(time.time() - began, 3),
            "figures": figures,
            "error": error,
            "before": before,
            "after": self._moment(),
        }

    def _figures(self, setting: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
        places = {"{program}": str(self.programs / "llama-server"), "{model}": str(self.model)}
        key = secrets.token_hex(32)
        document = {
            **self.document["requests"],
            "argv": [places.get(word, word) for word in setting["argv"]],
            "key": key,
            "key_document": engines.of({"kind": "llama.cpp"}).key_document([key]),
            "ready_seconds": _READY_SECONDS,
            "tokens": random.SystemRandom().sample(_TOKENS, _TOKENS_OF_A_RUN),
        }
        more = {**setting["environment"], "CUDA_VISIBLE_DEVICES": str(self.gpu)}
        # A group of its own: where the program hangs, its server ends with it.
        with subprocess.Popen(
            tune.child(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **more},
            process_group=0,
        ) as child:
            try:
                out, errors = child.communicate(json.dumps(document) + "\n", _RUN_SECONDS)
            except BaseException as fault:
                os.killpg(child.pid, signal.SIGKILL)
                if isinstance(fault, subprocess.TimeoutExpired):
                    return None, f"no end within {_RUN_SECONDS} s"
                raise
        found = [line for line in out.splitlines() if line.startswith(tune_child.MARK)]
        if child.returncode or not found:
            return None, errors[-_SHOWN:]
        return json.loads(found[-1][len(tune_child.MARK) :]), ""

    def _moment(self) -> dict[str, Any]:
        found: dict[str, Any] = tune.moment({"gpus": [self.gpu]})
        return found


def model_file(folder: Path, document: dict[str, Any], path: Path) -> Path:
    """The model without weights: its header, then a hole; both are made once."""
    whole = document["file_bytes"]
    if not path.exists() or path.stat().st_size != whole:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.decompress((folder / document["header"]).read_bytes()))
        os.truncate(path, whole)
    return path
