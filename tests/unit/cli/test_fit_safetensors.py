"""`corral fit` of models in safetensors: headers and config.json from a hub on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.fit.safetensors.offers import ParallelOffer
from corral.lock.lock_file import Lock, LockedFile, LockedModel
from lab import hub
from lab.hub_store import Store
from tests.unit.cli.test_cli import assert_one_message
from tests.unit.fit_project import SHIPPED, Fit, ModelHub
from tests.unit.hub_layouts import declared_digests
from tests.unit.model_dimensions import GLM_4_5_AIR, tensors_of
from tests.unit.running_hub import RunningHub
from tests.unit.safetensors_files import data_bytes, header_of

pytestmark = pytest.mark.slow

AIR, REPO, TINY = "glm-4.5-air-fp8", "zai-org/GLM-4.5-Air-FP8", "tiny-glm-moe-safetensors"
PROFILE = """
model = "glm-4.5-air-fp8"
quant = "FP8"
engine = "vllm-fit"
context_tokens_per_slot = 65536
slots = 64
batch_tokens = 8192
tensor_parallel = 2
"""
ENGINE = """
kind = "vllm"
repository = "https://git.example.com/vllm"
commit = "main"
targets = ["none"]
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHub]:
    """GLM-4.5-Air-FP8 in two shards whose data are holes, and the tiny model."""
    folder = tmp_path_factory.mktemp("models")
    root, log = folder / "hub", io.StringIO()
    hub.prepare(root)
    _write_air(root / "repos" / REPO / "main")
    with pytest.MonkeyPatch.context() as patched, contextlib.ExitStack() as stack:
        patched.setattr("lab.hub_store._digests", _digests)
        url = stack.enter_context(hub.running(root, log=log))
        lock = Lock(models={name: _locked(root, name) for name in (AIR, TINY)})
        yield ModelHub(RunningHub(root, url, log), lock, folder / "kept")


def _write_air(folder: Path) -> None:
    folder.mkdir(parents=True)
    tensors = {t.name: (t.type, t.shape) for t in tensors_of(GLM_4_5_AIR, "fp8-channel")}
    names = list(tensors)
    for number, part in enumerate((names[:20_000], names[20_000:]), start=1):
        shard = {name: tensors[name] for name in part}
        raw = header_of(shard)
        with (folder / f"model-{number:05}-of-00002.safetensors").open("wb") as file:
            file.write(raw)
            file.truncate(len(raw) + data_bytes(shard))
    quantization = {"quantization_config": {"quant_method": "compressed-tensors"}}
    (folder / "config.json").write_text(json.dumps(GLM_4_5_AIR | quantization))


def _digests(location: Path) -> tuple[str, str]:
    """Real ones of small files; holes of a hundred gigabytes have declared ones."""
    if location.suffix == ".safetensors":
        return declared_digests(location)
    content = location.read_bytes()
    return hashlib.sha256(content).hexdigest(), hashlib.sha1(content).hexdigest()  # noqa: S324


def _locked(root: Path, name: str) -> LockedModel:
    """What `corral lock` would write; of the tiny model the quant BF16 alone."""
    entry = SHIPPED.models[name]
    quant = next(iter(entry.quants))
    snapshot = Store(root).snapshot(entry.repo, "main")
    folder = "BF16/" if name == TINY else ""
    files = sorted(
        (f for f in snapshot.files if f.path.startswith(folder) and f.path != "README.md"),
        key=lambda f: (not f.is_lfs, f.path),
    )
    locked = tuple(
        LockedFile(
            path=f.path,
            size_bytes=f.size_bytes,
            sha256=f.sha256,
            kind=None if f.is_lfs else "config",
        )
        for f in files
    )
    return LockedModel(
        repo=entry.repo,
        requested=entry.revision,
        revision=snapshot.commit,
        patterns={quant: entry.quants[quant].patterns},
        quants={quant: locked},
    )


@pytest.fixture
def fit(fit: Fit) -> Fit:
    fit.add("engines/vllm-fit.toml", ENGINE)
    fit.add("profiles/air-fp8.toml", PROFILE)
    return fit


def test_divisions_of_the_gpus_are_listed_best_first(fit: Fit) -> None:
    said = fit(AIR, "--gpu", "4 x H200")
    assert (said.code, said.err) == (0, "")
    heads, first, *_ = said.out.splitlines()
    assert heads.split("  ")[0] == "quant"
    assert first.split()[:6] == ["FP8", "25.4", "4", "1", "divided", "f16"]
    assert "131,072" in first
    assert first.endswith(" of 32,768 tokens")
    assert len(said.out.splitlines()) == 1 + 6 + 2


def test_json_has_every_offer(fit: Fit) -> None:
    found = json.loads(fit(AIR, "--gpu", "4 x H200", "--json").out)
    offers = [ParallelOffer.model_validate(offer) for offer in found]
    assert [(o.tensor_parallel, o.data_parallel) for o in offers[:3]] == [(4, 1), (2, 2), (1, 4)]
    assert offers[0].cache_tokens > 2_000_000


@pytest.mark.parametrize("name", [REPO, f"{REPO}/FP8", f"{AIR}/FP8"])
def test_a_model_is_named_by_its_repository_too(fit: Fit, name: str) -> None:
    assert fit(name, "--gpu", "4 x H200").out == fit(AIR, "--gpu", "4 x H200").out


def test_an_unknown_quant_of_a_repository_is_named(fit: Fit) -> None:
    said = fit(f"{REPO}/INT4", "--gpu", "H200")
    assert_one_message(said, "has no quant INT4")


def test_an_unknown_repository_is_named_with_the_closest(fit: Fit) -> None:
    said = fit("zai-org/GLM-4.5-Air-FP9", "--gpu", "H200")
    assert_one_message(said, 'no model of the catalog has the repository "zai-org/GLM-4.5-Air-FP9"')
    assert f'did you mean "{REPO}"?' in said.err


def test_a_profile_has_rows_and_what_the_cache_holds(fit: Fit) -> None:
    said = fit(AIR, "--profile", "air-fp8", "--gpu", "2 x H200", "--ram", "512")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1].split()[:3] == ["GPU", "0", "50.6"]
    assert "The KV cache of each copy holds 81" in said.out
    assert "requests of the profile's length at a time" in said.out
    document = json.loads(
        fit(AIR, "--profile", "air-fp8", "--gpu", "2 x H200", "--ram", "512", "--json").out
    )
    assert document["cache"]["requests"] == pytest.approx(
        document["cache"]["tokens"] / 65536, abs=0.01
    )


def test_a_length_that_does_not_fit_is_refused_with_the_longest(fit: Fit) -> None:
    one = PROFILE.replace("65536", "131072").replace("tensor_parallel = 2", "")
    fit.add("profiles/long.toml", one)
    said = fit(AIR, "--profile", "long", "--gpu", "H200")
    assert said.code == 1
    assert "The engine would refuse it: to serve at least one request" in said.out
    assert "Next: lower context_tokens_per_slot to 1" in said.out


def test_nothing_fits_is_one_line_and_exit_code_one(fit: Fit) -> None:
    said = fit(AIR, "--gpu", "A100 40GB")
    assert said.code == 1
    assert said.out.startswith("nothing fits")


def test_an_engine_of_another_format_is_refused(fit: Fit) -> None:
    said = fit(AIR, "--profile", "glm-4.5-air-realtime", "--gpu", "H200")
    assert_one_message(said, "is in safetensors, which llama.cpp does not read")
    assert 'choose an engine of kind "vllm"' in said.err
    back = fit("glm-4.5-air", "--profile", "air-fp8", "--gpu", "2 x H200")
    assert_one_message(back, "is in gguf, which vllm does not read")


def test_the_tiny_model_is_read_from_its_folder(fit: Fit) -> None:
    said = fit(f"{TINY}/BF16", "--gpu", "H200")
    assert said.code == 0
    assert said.out.splitlines()[1].split()[0] == "BF16"
