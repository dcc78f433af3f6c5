"""A temporary copy of this checkout with a lab of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.layout import Layout, this_lab


@dataclass(frozen=True)
class ScratchCheckout:
    """Commands run in ``path`` with its own code; its lab is not the checkout's."""

    path: Path

    @classmethod
    def make(cls, purpose: str) -> ScratchCheckout:
        """Copy what git tracks or would add. The path is fixed, so leftovers of a killed run go."""
        here = this_lab()
        path = Path(tempfile.gettempdir()) / f"corral-{purpose}-{here.lab_id}"
        if path.exists():
            shutil.rmtree(path)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, cwd=here.checkout, check=True, capture_output=True, text=True)
        names = filter(None, done.stdout.split("\0"))
        for name in (name for name in names if (here.checkout / name).is_file()):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here.checkout / name, path / name)
        return cls(path)

    @property
    def layout(self) -> Layout:
        """Names, addresses and folders of its lab."""
        return Layout.of(self.path)

    def run(self, program: str, *arguments: str) -> str:
        """Run `corral` or `pyinfra` as a user does. Exits this program if it fails."""
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.path), "PYINFRA_PROGRESS": "off"}
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def use_cached_releases(self) -> None:
        """Releases that the tests have built need not be built again."""
        kept = self.layout.cache / "archives"
        if kept.is_dir():
            shutil.copytree(kept, self.layout.archives, dirs_exist_ok=True)

    def remove(self) -> None:
        """Remove its lab and its files."""
        self.run("corral", "lab", "down")
        shutil.rmtree(self.path)
