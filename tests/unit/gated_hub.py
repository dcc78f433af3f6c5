"""A hub by https whose models are gated, as huggingface.co is; its storage is another origin."""

from __future__ import annotations

import io
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import hub
from tests.unit.running_hub import RunningHub

TOKEN = "hf_canary0123456789"  # noqa: S105


def certificate(folder: Path) -> Path:
    """Key and certificate of this machine in one file."""
    path, public = folder / "hub.pem", folder / "public.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,DNS:huggingface.co,IP:127.0.0.1", "-keyout", str(path),
         "-out", str(public)],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + public.read_text())
    return path


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@contextmanager
def gated_hub(
    root: Path, pem: Path, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN
) -> Iterator[RunningHub]:
    """Taken for the hub that gives tokens, and trusted, until the block ends."""
    log = io.StringIO()
    with (
        hub.running(root, log=log, context=server_context(pem), token=token) as url,
        monkeypatch.context() as patched,
    ):
        patched.setattr("corral_shared.hub.HUGGING_FACE", url)
        patched.setenv("SSL_CERT_FILE", str(pem))
        yield RunningHub(root, url, log)


def asked(running: RunningHub, lines: int) -> list[tuple[str, str]]:
    """Who was asked, the hub or its storage, and whether with a token; in order."""
    rows = [line.split() for line in running.logged(lines)]
    return [
        ("storage" if row[1].startswith("/cdn/") else "hub", row[5].removeprefix("auth="))
        for row in rows
    ]
