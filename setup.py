"""A wheel carries what a deploy needs beside the package, inside of it: see corral/product.py."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
BUNDLED = (
    "catalog",
    "config.py",
    "deploy.py",
    "deploys",
    "facts",
    "files",
    "operations",
    "requirements.lock",
    "templates",
)


class BuildWithBundle(build_py):
    """Copies the bundle; an editable install reads the checkout instead."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        bundle = Path(self.build_lib) / "corral" / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir(parents=True)
        for name in BUNDLED:
            if (ROOT / name).is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
                shutil.copytree(ROOT / name, bundle / name, ignore=unwanted)
            else:
                shutil.copy2(ROOT / name, bundle / name)


setup(cmdclass={"build_py": BuildWithBundle})
