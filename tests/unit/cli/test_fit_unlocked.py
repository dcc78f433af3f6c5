"""`corral fit` of what no lock has: a model of the catalog, and any repository of a hub."""

from __future__ import annotations

import json

import pytest

from corral.catalog.entries import Quant
from corral.fit.answer import Answer
from corral.fit.offers import Offer
from corral.lock.lock_file import Lock, write_lock
from corral.lock.unlocked import quants_in
from tests.unit.cli.test_cli import assert_one_message
from tests.unit.fit_project import SHIPPED, Fit

pytestmark = pytest.mark.slow

Z1, PROFILE = "glm-z1-32b-0414", ("--profile", "glm-z1-32b")
GPU = ("--gpu", "H200", "--ram", "128")


def test_a_model_that_is_not_locked_is_read_from_the_hub(fit: Fit) -> None:
    locked = fit.json(Z1, *PROFILE, *GPU)
    write_lock(fit.root / "corral.lock", Lock())
    said = fit(Z1, *PROFILE, *GPU, "--json")
    assert Answer.model_validate_json(said.out) == locked
    assert f"{Z1} is not locked: its files are those that {fit.hub_url} has now" in said.err
    assert json.loads((fit.root / "corral.lock").read_text())["models"] == {}


@pytest.mark.parametrize("quant", ["", "/IQ4_XS"])
def test_a_repository_that_no_catalog_names_is_read_from_the_hub(fit: Fit, quant: str) -> None:
    repository = SHIPPED.models[Z1].repo
    kept = fit(Z1, *GPU, "--json")
    for part in ("models", "profiles"):
        fit.add(f"{part}/other.toml", "")
        for file in (fit.root / "catalog" / part).iterdir():
            file.unlink()
    said = fit(f"{repository}{quant}", *GPU, "--json")
    assert said.code == 0, said.err
    offers = [Offer.model_validate(row) for row in json.loads(said.out)]
    assert {offer.quant for offer in offers} == {"IQ4_XS"}
    assert [Offer.model_validate(row) for row in json.loads(kept.out)] == offers


def test_a_repository_with_a_profile_of_the_catalog(fit: Fit) -> None:
    repository, known = SHIPPED.models[Z1].repo, fit.json(Z1, *PROFILE, *GPU)
    entry = fit.root / "catalog/models"
    fit.add("models/other.toml", (entry / "glm-4.5-air.toml").read_text())
    (entry / f"{Z1}.toml").unlink()
    (entry / "other.toml").unlink()
    assert fit.json(repository, *PROFILE, *GPU) == known


def test_a_repository_that_is_nowhere_is_one_message(fit: Fit) -> None:
    said = fit("nobody/Nothing-GGUF", *GPU)
    assert_one_message(said, "nobody/Nothing-GGUF", "has no repository nobody/Nothing-GGUF")
    # Those of the catalog are no help unless one is meant.
    assert "known:" not in said.err


def test_a_quant_that_a_repository_lacks_is_told_with_those_it_has(fit: Fit) -> None:
    (fit.root / "catalog/models").unlink()
    (fit.root / "catalog/models").mkdir()
    said = fit(f"{SHIPPED.models[Z1].repo}/Q9", *GPU)
    assert_one_message(said, "has no quant Q9 (known: IQ4_XS)")


def test_quants_that_cannot_fit_are_not_read(fit: Fit) -> None:
    said = fit("glm-4.5-air", "--gpu", "A40", "--ram", "4")
    assert (said.code, said.out) == (1, "nothing fits, not even 4,096 tokens with q4_0\n")


PATHS = [
    "UD-Q4_K_XL/GLM-4.6-UD-Q4_K_XL-00001-of-00002.gguf",
    "UD-Q4_K_XL/GLM-4.6-UD-Q4_K_XL-00002-of-00002.gguf",
    "GLM-4.6-UD-TQ1_0.gguf",
    "GLM-4.6-Q4_K_M.gguf",
    "old/GLM-4.6-Q4_K_M.gguf",
    "GLM-4.6.IQ4_XS.gguf",
    "odd[1].gguf",
    "mmproj-BF16.gguf",
    "imatrix_unsloth.gguf",
]


def test_quants_are_told_by_the_names_of_files() -> None:
    found = quants_in(PATHS, "unsloth/GLM-4.6-GGUF")
    assert found == {
        "UD-Q4_K_XL": Quant(files="UD-Q4_K_XL/GLM-4.6-UD-Q4_K_XL-*-of-00002.gguf"),
        "UD-TQ1_0": Quant(files="GLM-4.6-UD-TQ1_0.gguf"),
        "GLM-4.6-Q4_K_M": Quant(files="GLM-4.6-Q4_K_M.gguf"),
        "old/GLM-4.6-Q4_K_M": Quant(files="old/GLM-4.6-Q4_K_M.gguf"),
        "IQ4_XS": Quant(files="GLM-4.6.IQ4_XS.gguf"),
        "odd[1]": Quant(files="odd[[]1].gguf"),
    }


@pytest.mark.parametrize(
    ("repository", "name"), [("zai-org/GLM-4.6-FP8", "FP8"), ("zai-org/GLM-4.6", "safetensors")]
)
def test_a_repository_in_safetensors_is_one_quant(repository: str, name: str) -> None:
    paths = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "x/y.gguf.bin"]
    found = quants_in([*paths, "extra/other.safetensors"], repository)
    assert found == {name: Quant(files="model*.safetensors", config=("config.json",))}
