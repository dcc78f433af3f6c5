"""The tiny model of the smoke test, which a new engine release must pass."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from corral.files import writing
from corral.paths import HostPaths


class SmokeModel:
    """The model, written on first use: a host with all its releases needs none."""

    def path(self, paths: HostPaths) -> str:
        """Its path on a host."""
        return f"{paths.archives}/smoke-model.gguf"

    def content(self) -> bytes:
        """The same bytes every time, about half a megabyte."""
        return _content()

    def sha256(self) -> str:
        """Digest of ``content``."""
        return hashlib.sha256(_content()).hexdigest()


@cache
def _content() -> bytes:
    # gguf imports numpy, which the other commands do not need.
    from corral.smoke_model import gguf_writer

    step = "free disk space there, then run the same deploy again"
    with writing(Path(gettempdir()), next_step=step), TemporaryDirectory() as folder:
        gguf_writer.write(Path(folder))
        (file,) = Path(folder, "Q8_0").iterdir()
        return file.read_bytes()
