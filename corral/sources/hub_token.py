"""The operator's token for gated models: read where it is used, and kept nowhere."""

from __future__ import annotations

import re

# A token is one word; what has line ends or blanks in it would be more than one header.
_TOKEN = re.compile(r"[!-~]{1,1024}")


def operator_token() -> str | None:
    """HF_TOKEN, or what `hf auth login` kept; None where there is none that can be sent."""
    # Imported here, since most commands need no token.
    from huggingface_hub import get_token

    found = get_token()
    return found if found and _TOKEN.fullmatch(found) else None
