"""The tiny model that a new engine release is tried on before it counts."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from corral.files import writing
from corral.paths import HostPaths


class SmokeModel:
    """Made when first asked for: a host that lacks nothing needs none."""

    def path(self, paths: HostPaths) -> str:
        """Where it goes on a host."""
        return f"{paths.archives}/smoke-model.gguf"

    def content(self) -> bytes:
        """The same bytes every time, about half a megabyte."""
        return _content()

    def sha256(self) -> str:
        """Digest of ``content``."""
        return hashlib.sha256(_content()).hexdigest()


@cache
def _content() -> bytes:
    # gguf brings numpy, which the other commands do without.
    from corral.smoke_model import gguf_writer

    step = "make room there, then run the same deploy again"
    with writing(Path(gettempdir()), next_step=step), TemporaryDirectory() as folder:
        gguf_writer.write(Path(folder))
        (file,) = Path(folder, "Q8_0").iterdir()
        return file.read_bytes()
