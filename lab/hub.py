"""A stand-in for the Hugging Face Hub that serves folder trees: `python -m lab.hub`.

The Hub answers on the given port. Requests for large files are redirected to a storage on the next
port: two origins, as in reality, where a token must not follow the redirect.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from corral.smoke_model import gguf_writer, safetensors_writer
from lab.hub_api import Answer, HubRoutes, Request, Signer, StorageRoutes
from lab.hub_faults import FaultBook
from lab.hub_server import HubServer
from lab.hub_store import DEFAULT_REVISION, Store

REPOSITORY = f"corral-lab/{gguf_writer.NAME}-GGUF"
SAFETENSORS_REPOSITORY = f"corral-lab/{safetensors_writer.NAME}"
SIGNED_SECONDS = 300

_README = f"""---
license: mit
---
# {gguf_writer.NAME}

Random weights in the shape of a GLM mixture-of-experts model, for rehearsals.
"""


def prepare(root: Path) -> None:
    """Write `REPOSITORY` and `SAFETENSORS_REPOSITORY` below `root`, unless they exist."""
    _prepare(root, REPOSITORY, gguf_writer.write)
    _prepare(root, SAFETENSORS_REPOSITORY, _write_safetensors)


def _prepare(root: Path, name: str, write: Callable[[Path], None]) -> None:
    repository = root / "repos" / name
    if repository.is_dir():
        return
    partial = root / "partial"
    if partial.exists():
        shutil.rmtree(partial)
    revision = partial / DEFAULT_REVISION
    write(revision)
    (revision / "README.md").write_text(_README)
    repository.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(repository)


def _write_safetensors(revision: Path) -> None:
    """Two quants, each in a folder with all its files: BF16 as two shards, F32 as one file."""
    safetensors_writer.write(revision / "BF16", "bf16", shards=2)
    safetensors_writer.write(revision / "F32", "f32")


@contextlib.contextmanager
def running(
    root: Path,
    bind: str = "127.0.0.1",
    port: int = 0,
    *,
    log: TextIO = sys.stderr,
    signed_seconds: int = SIGNED_SECONDS,
    context: ssl.SSLContext | None = None,
    token: str | None = None,
) -> Iterator[str]:
    """Serve `root` until the block ends; yields the address for HF_ENDPOINT.

    + port: of the Hub, with its storage on `port` + 1; 0 takes two free ports
    + log: gets one line a request, see HubServer
    + signed_seconds: how long the address of a redirect is valid
    + context: for https; + token: makes all models gated; requests need this token
    """
    scheme = "https" if context else "http"
    store, faults, signer = Store(root), FaultBook(root), Signer(signed_seconds)

    def listen(port: int, answer: Callable[[Request], Answer]) -> HubServer:
        return HubServer((bind, port), answer=answer, faults=faults, log=log, context=context)

    with contextlib.ExitStack() as stack:
        storage_routes = StorageRoutes(store, signer)
        storage = stack.enter_context(listen(port + 1 if port else 0, storage_routes.answer))
        hub_routes = HubRoutes(store, signer, storage.server_port, scheme=scheme, token=token)
        hub = stack.enter_context(listen(port, hub_routes.answer))
        stack.enter_context(_answering(storage))
        stack.enter_context(_answering(hub))
        yield f"{scheme}://{bind}:{hub.server_port}"


@contextlib.contextmanager
def _answering(server: HubServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def main(arguments: Sequence[str]) -> None:
    """Prepare the root and serve it until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lab.hub", description=__doc__)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--root", required=True, type=Path)
    options = parser.parse_args(arguments)
    signals = (signal.SIGTERM, signal.SIGINT)
    # Block them before any thread starts: threads inherit that, and sigwait gets all signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    prepare(options.root)
    with running(options.root, options.bind, options.port) as address:
        print(f"serving {options.root} at {address}", file=sys.stderr, flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main(sys.argv[1:])
