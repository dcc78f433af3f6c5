"""The one hub that gives tokens, and the one that is sent them."""

from __future__ import annotations

HUGGING_FACE = "https://huggingface.co"


def is_hub(url: str) -> bool:
    """Whether an address is the hub's own, by https; a mirror and the hub's storage are not."""
    return url.startswith(f"{HUGGING_FACE}/")


def authorization(url: str, token: str | None) -> dict[str, str]:
    """The header that goes to an address, wherever the address came from."""
    return {"Authorization": f"Bearer {token}"} if token and is_hub(url) else {}
