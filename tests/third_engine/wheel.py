"""The wheel that brings the echo server, and what a catalog says of it."""

from __future__ import annotations

from pathlib import Path

from tests.wheels import make_wheel

SERVER = Path(__file__).with_name("server.py")
VERSION = "1.0"
NAME = f"echo_engine-{VERSION}-py3-none-any.whl"


def make(folder: Path) -> Path:
    """Write the wheel; equal servers give equal bytes."""
    return make_wheel(
        folder, "echo_engine", {"echo_engine.py": SERVER.read_text()}, version=VERSION
    )


def catalog_entry(url: str, more: str = "") -> str:
    """catalog/engines/echo.toml; ``url``: of an index."""
    return (
        f'kind = "echo"\n\n[python]\nrequirements = ["echo-engine=={VERSION}"]\n'
        f'python = ">=3.9"\nindex = "{url}"\n{more}'
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
