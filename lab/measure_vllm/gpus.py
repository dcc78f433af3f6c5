"""What nvidia-smi says of the GPUs, and of the processes on them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def memory_mib() -> list[tuple[int, int]]:
    """Used and total memory of each GPU."""
    lines = _nvidia_smi("--query-gpu=memory.used,memory.total")
    return [(int(used), int(whole)) for used, whole in lines]


def processes() -> list[dict[str, Any]]:
    """Each process on a GPU: its name, its id, the GPU's number, and what it holds there."""
    numbers = {uuid: int(number) for uuid, number in _nvidia_smi("--query-gpu=uuid,index")}
    return [
        {"name": _process_name(pid), "pid": int(pid), "gpu": numbers[uuid], "mib": int(used)}
        for pid, uuid, used in _nvidia_smi("--query-compute-apps=pid,gpu_uuid,used_memory")
    ]


def held_mib(found: list[dict[str, Any]]) -> list[int]:
    """What processes hold on each GPU."""
    held: dict[int, int] = {}
    for process in found:
        held[process["gpu"]] = held.get(process["gpu"], 0) + process["mib"]
    return [held[number] for number in sorted(held)]


def _process_name(pid: str) -> str:
    """The title that vLLM gives a process, of which the kernel's own name has 15 characters."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0].strip()
        if title.startswith("VLLM::"):
            return title
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _nvidia_smi(query: str) -> list[list[str]]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [[part.strip() for part in line.split(",")] for line in text.splitlines()]
