"""The wheel that brings the echo server, and what a catalog says of it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
VERSION = "1.0"
NAME = f"echo_engine-{VERSION}-py3-none-any.whl"
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make(folder: Path) -> Path:
    """Write the wheel; equal servers give equal bytes."""
    path, info = folder / NAME, f"echo_engine-{VERSION}.dist-info"
    members = {
        "echo_engine.py": SERVER.read_text(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: echo_engine\nVersion: {VERSION}\n",
        f"{info}/WHEEL": _WHEEL,
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def catalog_entry(wheel: Path, url: str) -> str:
    """catalog/engines/echo.toml."""
    content = wheel.read_bytes()
    return (
        f'kind = "echo"\n\n[python]\nurl = "{url}"\n\n[[python.wheels]]\nfile = "{wheel.name}"\n'
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nsize_bytes = {len(content)}\n'
    )


PROFILE = """model = "tiny-glm-moe"
quant = "Q8_0"
engine = "echo"
placement = "cpu"
context_tokens_per_slot = 1024
slots = 2

[[golden]]
prompt = "Hello there."
max_tokens = 8
exact = "You said: Hello there."
"""
"""catalog/profiles/echo.toml: it reads no weights, but has them as any engine does."""
