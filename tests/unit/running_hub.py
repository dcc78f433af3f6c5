"""A stand-in hub that runs for a test, and what it answered."""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi

from lab import hub

WHOLE = "Q8_0/Tiny-GLM-MoE-Q8_0.gguf"
RESOLVE = f"/{hub.REPOSITORY}/resolve/main"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class RunningHub:
    root: Path
    url: str
    log: io.StringIO

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.url, token=False)

    @property
    def content(self) -> bytes:
        return (self.root / "repos" / hub.REPOSITORY / "main" / WHOLE).read_bytes()

    def get(self, address: str, method: str = "GET", **headers: str) -> Reply:
        """One request to an address or a path of the hub; redirects are not followed."""
        parts = urlsplit(address if address.startswith("http") else self.url + address)
        connection = http.client.HTTPConnection(parts.netloc, timeout=120)
        try:
            connection.request(method, f"{parts.path}?{parts.query}", headers=headers)
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def signed(self, path: str = WHOLE) -> str:
        return self.get(f"{RESOLVE}/{path}", "HEAD").headers["Location"]

    def logged(self, lines: int) -> list[str]:
        """The log once it has so many lines: a line is written after its body was sent."""
        deadline = time.monotonic() + 120
        while self.log.getvalue().count("\n") < lines:
            assert time.monotonic() < deadline, self.log.getvalue()
            time.sleep(0.01)
        return self.log.getvalue().splitlines()
