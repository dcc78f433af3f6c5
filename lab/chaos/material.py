"""Material for changes: another release, a model that replies gibberish, and certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path

from corral.smoke_model import byte_tokens, gguf_writer
from lab.chaos.wanted import Wanted, want
from lab.hub_store import DEFAULT_REVISION
from lab.layout import GATEWAY
from lab.scratch_checkout import ScratchCheckout

OTHER_ENGINE = "llama.cpp-other"
GIBBERISH = "tiny-gibberish"
# The same profile under another alias.
PROFILE, OTHER_PROFILE, OTHER_ALIAS = "tiny-chaos", "tiny-chaos-other", "other-glm"
# Files with a gateway's certificate and key, in the checkout, as an inventory names them.
CERTIFICATES = ("gateway-old.pem", "gateway-new.pem")
# The certificates that clients trust: both.
TRUSTED = "gateways.pem"
_REPOSITORY = "corral-lab/Tiny-Gibberish-GGUF"
_MODEL = f"""# Weights whose replies are one character, again and again.
repo = "{_REPOSITORY}"
train_context_tokens = {byte_tokens.CONTEXT_TOKENS}

[quants.Q8_0]
files = "Q8_0/*.gguf"
"""
# Without one program it is another release, for which the compiler cache has every object.
_LEFT_OUT = ', "llama-gguf-split"'


def provide(checkout: ScratchCheckout, inventory: str) -> None:
    """Add them to the checkout's catalog, its hub and its lock file."""
    engines = checkout.path / "catalog" / "engines"
    text = (engines / "llama.cpp.toml").read_text()
    if _LEFT_OUT not in text:
        raise SystemExit(f"catalog/engines/llama.cpp.toml does not name {_LEFT_OUT}")
    (engines / f"{OTHER_ENGINE}.toml").write_text(text.replace(_LEFT_OUT, ""))
    profiles = checkout.path / "catalog" / "profiles"
    text = (profiles / f"{PROFILE}.toml").read_text()
    other = text.replace('alias = "tiny-glm-moe"', f'alias = "{OTHER_ALIAS}"')
    (profiles / f"{OTHER_PROFILE}.toml").write_text(other)
    _make_certificates(checkout.path, str(checkout.layout.address(GATEWAY)))
    models = checkout.path / "catalog" / "models"
    (models / f"{GIBBERISH}.toml").write_text(_MODEL)
    repository = checkout.layout.hub / "repos" / _REPOSITORY
    gguf_writer.write(repository / DEFAULT_REVISION, letters=b"!")
    strange = {"profile": "tiny-chaos", "model": GIBBERISH, "engine": OTHER_ENGINE}
    want(checkout.layout, Wanted(strange))
    checkout.run("corral", "lock", inventory)
    want(checkout.layout, Wanted())


def _make_certificates(folder: Path, address: str) -> None:
    certificate, key = folder / "made.crt", folder / "made.key"
    trusted = ""
    for name in CERTIFICATES:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{address}"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        trusted += certificate.read_text()
        (folder / name).write_text(certificate.read_text() + key.read_text())
    (folder / TRUSTED).write_text(trusted)
    certificate.unlink()
    key.unlink()
