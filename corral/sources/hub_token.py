"""The operator's token for gated models: read where it is used, never stored."""

from __future__ import annotations

import re

# A token has no whitespace: a line end in it would start another header.
_TOKEN = re.compile(r"[!-~]{1,1024}")


def operator_token() -> str | None:
    """HF_TOKEN, or the token of `hf auth login`; None without a valid one."""
    # Imported here, since most commands need no token.
    from huggingface_hub import get_token

    token = get_token()
    return token if token and _TOKEN.fullmatch(token) else None
