"""The tiny models of the smoke test, which a new engine release must pass."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from corral.catalog.entries import WeightsFormat
from corral.files import writing
from corral.paths import HostPaths

# Of each file in the archive, so that its bytes are the same every time.
_TIME = (2026, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SmokeModel:
    """A model of one format, written on first use: a host with all its releases needs none."""

    form: WeightsFormat = "gguf"

    def path(self, paths: HostPaths) -> str:
        """Its path on a host; a model of several files is an archive of them."""
        suffix = "zip" if self.form == "safetensors" else "gguf"
        return f"{paths.archives}/smoke-model.{suffix}"

    def content(self) -> bytes:
        """The same bytes every time, less than a megabyte."""
        return _folder() if self.form == "safetensors" else _gguf()

    def sha256(self) -> str:
        """Digest of ``content``."""
        return hashlib.sha256(self.content()).hexdigest()


_STEP = "free disk space there, then run the same deploy again"


@cache
def _gguf() -> bytes:
    # gguf imports numpy, which the other commands do not need.
    from corral.smoke_model import gguf_writer

    with writing(Path(gettempdir()), next_step=_STEP), TemporaryDirectory() as folder:
        gguf_writer.write(Path(folder))
        (file,) = Path(folder, "Q8_0").iterdir()
        return file.read_bytes()


@cache
def _folder() -> bytes:
    """The files of the tiny model in safetensors; weights hardly shrink, so none are compressed."""
    from corral.smoke_model import safetensors_writer

    packed = io.BytesIO()
    with writing(Path(gettempdir()), next_step=_STEP), TemporaryDirectory() as folder:
        safetensors_writer.write(Path(folder), "bf16")
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name, _TIME), path.read_bytes())
    return packed.getvalue()
