"""The page of a fleet as HTML: one file, which asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from corral.page.document import FleetPage
from corral.templating import page_environment

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def fleet_html(page: FleetPage, templates: Path, *, refresh_seconds: int | None = None) -> str:
    """The HTML of the page.

    + refresh_seconds: a served page asks its own server for a newer one; None: it is a file
    """
    template = page_environment(templates).get_template("fleet.html.j2")
    return template.render(page=page, refresh_seconds=refresh_seconds)


def policy(html: str) -> str:
    """The Content-Security-Policy of a served page: only what it contains itself may run."""
    found: dict[str, list[str]] = {"style": [], "script": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'", "img-src data:", "connect-src 'self'", "base-uri 'none'",
            "form-action 'none'", "frame-ancestors 'none'",
            *(f"{kind}-src {' '.join(digests)}" for kind, digests in found.items() if digests),
        )
    )  # fmt: skip
