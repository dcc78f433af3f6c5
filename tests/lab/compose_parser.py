"""docker-compose as a parser of compose files: it needs no daemon and starts nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_PROGRAM = "docker-compose"


def docker_compose(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A compose file as docker-compose parses it; no daemon is needed."""
    assert shutil.which(_PROGRAM), f"no {_PROGRAM} here: run `make setup` as root"
    path = folder / "compose.yaml"
    path.write_text(text)
    return subprocess.run(
        [_PROGRAM, "--file", str(path), "config"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def parsed(text: str, folder: Path) -> Any:
    """The parsed file as data; docker-compose must accept it without a warning."""
    done = docker_compose(text, folder, CORRAL_IMAGE="debian:12")
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)
