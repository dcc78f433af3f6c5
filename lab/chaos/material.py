"""What scenarios change to beside the other quant: a second release, and a model of nonsense."""

from __future__ import annotations

from corral.smoke_model import gguf_writer
from lab.chaos.wanted import Wanted, want
from lab.hub_store import DEFAULT_REVISION
from lab.scratch_checkout import ScratchCheckout

OTHER_ENGINE = "llama.cpp-other"
GIBBERISH = "tiny-gibberish"
_REPOSITORY = "corral-lab/Tiny-Gibberish-GGUF"
_MODEL = f"""# Weights whose replies are one character, again and again.
repo = "{_REPOSITORY}"
train_context_tokens = {gguf_writer.CONTEXT_TOKENS}

[quants.Q8_0]
files = "Q8_0/*.gguf"
"""
# One program less is another release, of which the compiler cache has every object.
_LEFT_OUT = ', "llama-gguf-split"'


def provide(checkout: ScratchCheckout, inventory: str) -> None:
    """Add them to the checkout's catalog, its hub and its lock file."""
    engines = checkout.path / "catalog" / "engines"
    text = (engines / "llama.cpp.toml").read_text()
    if _LEFT_OUT not in text:
        raise SystemExit(f"catalog/engines/llama.cpp.toml does not name {_LEFT_OUT}")
    (engines / f"{OTHER_ENGINE}.toml").write_text(text.replace(_LEFT_OUT, ""))
    models = checkout.path / "catalog" / "models"
    (models / f"{GIBBERISH}.toml").write_text(_MODEL)
    repository = checkout.layout.hub / "repos" / _REPOSITORY
    gguf_writer.write(repository / DEFAULT_REVISION, letters=b"!")
    strange = {"profile": "tiny-chaos", "model": GIBBERISH, "engine": OTHER_ENGINE}
    want(checkout.layout, Wanted(strange))
    checkout.run("corral", "lock", inventory)
    want(checkout.layout, Wanted())
