"""The hub that issues tokens: tokens are sent to it and to no other host."""

from __future__ import annotations

HUGGING_FACE = "https://huggingface.co"


def is_hub(url: str) -> bool:
    """Whether an address is the hub's own, with https; mirrors and the hub's storage are not."""
    return url.startswith(f"{HUGGING_FACE}/")


def authorization(url: str, token: str | None) -> dict[str, str]:
    """Authorization headers for an address: empty unless it is the hub's, wherever it came from."""
    return {"Authorization": f"Bearer {token}"} if token and is_hub(url) else {}
