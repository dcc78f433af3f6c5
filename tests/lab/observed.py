"""What several lab tests read from hosts, by plain commands."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from tests.lab.workspace import Workspace

INSTANCES = (
    ("lab-1", "tiny-chat"),
    ("lab-1", "tiny-long"),
    ("lab-2", "tiny-f16"),
    ("lab-2", "tiny-ik"),
    ("lab-3", "tiny-gpu"),
    ("lab-3", "tiny-socket"),
)
MODELS = "/var/lib/corral/models"


def pids(lab: Workspace) -> dict[tuple[str, str], int]:
    """Main process of every instance; it changes with each restart."""
    return {pair: lab.pid(*pair) for pair in INSTANCES}


def locked_shards(lab: Workspace, quant: str) -> dict[str, str]:
    """File name -> sha256 of a quant of the tiny model, as corral.lock says."""
    model = json.loads((lab.path / "corral.lock").read_text())["models"]["tiny-glm-moe"]
    return {PurePosixPath(file["path"]).name: file["sha256"] for file in model["quants"][quant]}


def has_quant(lab: Workspace, host: str, quant: str) -> bool:
    """Whether the folder of a quant on a host has its locked shards and no others."""
    return digests(lab, host, f"{MODELS}/*/*/*/{quant}", "*.gguf") == locked_shards(lab, quant)


def digests(lab: Workspace, host: str, folder: str, pattern: str = "*") -> dict[str, str]:
    """File name -> sha256 of the matching files in a folder tree of a host."""
    found = lab.on(host, f"find {folder} -type f -name '{pattern}' -exec sha256sum {{}} +")
    pairs = [line.split(maxsplit=1) for line in found.splitlines()]
    return {PurePosixPath(path).name: digest for digest, path in pairs}
