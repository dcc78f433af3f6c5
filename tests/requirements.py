"""Requirements files of Python environments, made up: nothing is compiled, no index is asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from corral.catalog.entries import Engine
from corral.lock.lock_file import LockedEngine
from corral.lock.requirements import RequirementsFiles

INSTALLER = f"uv==0.13.9 \\\n    --hash=sha256:{'e' * 64}"


def text_of(engine: Engine) -> str:
    """One locked line for each requirement of a catalog entry."""
    assert engine.python
    return "".join(f"{one} --hash=sha256:{'d' * 64}\n" for one in engine.python.requirements)


def locked(engine: Engine) -> LockedEngine:
    """The lock's entry for an engine of any form."""
    if engine.image:
        digest = engine.image.sha256 or "5" * 64
        return LockedEngine(requested=engine.pinned, commit=digest[:40], image_sha256=digest)
    if engine.python is None:
        return LockedEngine(requested=engine.commit, commit=engine.commit)
    digest = hashlib.sha256(text_of(engine).encode()).hexdigest()
    return LockedEngine(requested=engine.pinned, commit=digest[:40], requirements_sha256=digest)


@dataclass(frozen=True)
class MadeRequirements(RequirementsFiles):
    """``texts``: engine -> the text of its file."""

    texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, engines: dict[str, Engine]) -> MadeRequirements:
        """For all environments of a catalog."""
        return cls(Path(), {name: text_of(one) for name, one in engines.items() if one.python})

    def read(
        self,
        engine: str,
        entry: LockedEngine,  # noqa: ARG002
        *,
        inventory: str = "",  # noqa: ARG002
    ) -> str:
        """The made-up file."""
        return self.texts[engine]

    def installer(self) -> str:
        """A made-up pin of uv."""
        return INSTALLER
