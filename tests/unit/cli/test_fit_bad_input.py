"""`corral fit` with headers and hubs that are wrong: one clear message for each."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral.fit.gguf import Tensor
from corral.lock.lock_file import Lock, LockedFile
from lab import hub
from tests.fuzz.gguf_files import STRING, UINT32, File, Key, placed, write
from tests.unit.cli.test_cli import Said, assert_one_message
from tests.unit.fit_project import Fit, fit_in, locked
from tests.unit.ranged_server import RangedServer, Served, serving

pytestmark = pytest.mark.slow

MODEL, QUANT = "glm-z1-32b-0414", "IQ4_XS"
FILE = "THUDM_GLM-Z1-32B-0414-IQ4_XS.gguf"
PROFILE, GPU = ("--profile", "glm-z1-32b"), ("--gpu", "3090 Ti", "--ram", "64")
MIB = 1024**2
F32 = 0
# On the GPU 4 MiB, and 3 MiB of embeddings on the host.
TENSORS = placed(
    [
        ("token_embd.weight", (256, 3072), F32),
        ("blk.0.attn_q.weight", (256, 1024), F32),
        ("blk.1.ffn_up.weight", (256, 2048), F32),
        ("output.weight", (256, 1024), F32),
    ]
)
ARCHITECTURE = Key("general.architecture", STRING, "glm9")


@pytest.fixture
def server() -> Iterator[RangedServer]:
    with serving() as running:
        yield running


@dataclass(frozen=True)
class Shelf:
    """A hub with one file, which is locked."""

    fit: Fit
    server: RangedServer

    def put(self, served: Served, *, locked_bytes: int | None = None) -> None:
        """``locked_bytes``: where the lock says another size."""
        entry = locked(MODEL, QUANT)
        name = f"{entry.repo}/resolve/{entry.revision}/{FILE}"
        source = self.server.add(name, served)
        self.lock(locked_bytes or source.size_bytes, source.sha256)

    def lock(self, size_bytes: int, sha256: str) -> None:
        file = LockedFile(path=FILE, size_bytes=size_bytes, sha256=sha256)
        lock = Lock(models={MODEL: locked(MODEL, QUANT, file)})
        (self.fit.root / "corral.lock").write_text(lock.model_dump_json())

    def ask(self, content: bytes, *, total_bytes: int | None = None) -> Said:
        """With a file that begins with ``content``."""
        self.put(Served(content, total_bytes or len(content) + 100 * MIB))
        return self.fit(MODEL, *PROFILE, *GPU)


@pytest.fixture
def shelf(
    server: RangedServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shelf:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Shelf(fit_in(tmp_path, Lock(), server.url, capsys, monkeypatch), server)


def gguf(*keys: Key, tensors: list[Tensor] = TENSORS) -> bytes:
    return bytes(write(File([ARCHITECTURE, *keys], tensors)).data)


def test_a_file_that_is_no_gguf_is_told_with_its_address(shelf: Shelf) -> None:
    said = shelf.ask(b"<html>Please log in</html>" + bytes(100))
    assert_one_message(
        said, FILE, "the header cannot be read: it is not a GGUF file, it starts with b'<htm'"
    )


def test_a_file_that_ends_within_its_header_is_told(shelf: Shelf) -> None:
    content = gguf()
    said = shelf.ask(content[:100], total_bytes=100)
    assert_one_message(said, FILE, "truncated: it has 100 bytes, its header asks for")


def test_a_file_that_ends_before_its_last_tensor_is_told(shelf: Shelf) -> None:
    content = gguf()
    said = shelf.ask(content, total_bytes=len(content) + 6 * MIB)
    needed_bytes = len(content) + 7 * MIB
    assert_one_message(said, FILE, f"its header asks for {needed_bytes}", "choose another quant")


def test_an_unknown_tensor_type_is_told_with_the_tensor(shelf: Shelf) -> None:
    said = shelf.ask(gguf(tensors=[Tensor("blk.0.attn_q.weight", (256,), 999, 0)]))
    assert_one_message(said, FILE, "tensor blk.0.attn_q.weight has", "999")


def test_a_hub_without_ranges_is_told_before_the_whole_file_comes(
    shelf: Shelf, server: RangedServer
) -> None:
    shelf.put(Served(gguf(), 10**10, ranges=False))
    said = shelf.fit(MODEL, *PROFILE, *GPU)
    assert_one_message(said, "does not serve ranges: it would send the whole file", "set hub_url")
    assert server.sent_bytes < 100 * MIB


def test_a_file_that_is_not_the_locked_one_is_told(shelf: Shelf) -> None:
    shelf.put(Served(gguf(), 100 * MIB), locked_bytes=100 * MIB + 1)
    said = shelf.fit(MODEL, *PROFILE, *GPU)
    assert_one_message(said, "the hub's file has 104857600 bytes, the locked one 104857601")


def test_a_hub_that_has_no_such_file_or_is_not_there_is_told(shelf: Shelf, tmp_path: Path) -> None:
    shelf.lock(10**9, "0" * 64)
    corral, words = shelf.fit.corral, ("fit", MODEL, *PROFILE, *GPU, "--hub")
    gone = corral(*words, "http://127.0.0.1:9")
    assert_one_message(gone, "http://127.0.0.1:9/", "the hub does not answer")
    with empty_hub(tmp_path) as url:
        assert_one_message(corral(*words, url), url, "the hub has no such file (404)")


@contextlib.contextmanager
def empty_hub(folder: Path) -> Iterator[str]:
    (folder / "hub" / "repos").mkdir(parents=True)
    with hub.running(folder / "hub", log=io.StringIO()) as url:
        yield url


def test_of_an_unknown_architecture_the_weights_are_exact_and_the_keys_are_named(
    shelf: Shelf,
) -> None:
    said = shelf.ask(gguf(Key("glm9.block_count", UINT32, 2)))
    assert (said.code, said.err) == (1, "")
    missing = [
        "attention.head_count", "embedding_length", "vocab_size", "feed_forward_length",
        "context_length",
    ]  # fmt: skip
    last = said.out.splitlines()[-1]
    assert last.startswith('Unknown: architecture "glm9": its header lacks glm9.')
    assert last.endswith("The weights are exact.")
    assert "KV are exact" not in said.out
    assert "  fits" not in said.out
    assert [key for key in missing if f"glm9.{key}" not in last] == []
    rows = shelf.fit.json(MODEL, *PROFILE, *GPU).rows
    assert [(row.device, row.weights_mib, row.kv_mib) for row in rows] == [
        ("GPU 0", 4, 0),
        ("host", 3, 0),
    ]


def test_an_unknown_architecture_with_all_keys_is_told_with_those_that_are_known(
    shelf: Shelf,
) -> None:
    numbers = {
        "block_count": 2, "attention.head_count": 8, "embedding_length": 256,
        "vocab_size": 3072, "feed_forward_length": 512, "context_length": 32768,
    }  # fmt: skip
    keys = [Key(f"glm9.{name}", UINT32, number) for name, number in numbers.items()]
    said = shelf.ask(gguf(*keys))
    known = "(known: deepseek2, glm-dsa, glm4, glm4moe, glm5-next)"
    assert f'architecture "glm9" is unknown to Corral {known}' in said.out
    assert said.code == 1


def test_what_fits_cannot_be_listed_for_an_unknown_architecture(shelf: Shelf) -> None:
    shelf.put(Served(gguf(), 100 * MIB))
    said = shelf.fit(MODEL, *GPU)
    assert_one_message(said, f"{MODEL}/{QUANT}", 'architecture "glm9"', "add --profile")
