"""What a deploy would run, in other forms than a unit: pure functions of an instance's plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from corral.export.compose import compose
from corral.export.env import env
from corral.export.script import script
from corral.export.subject import Subject

FORMS: Mapping[str, Callable[[Subject, Path], str]] = {
    "env": env,
    "script": script,
    "compose": compose,
}
