"""`corral lock` against a stand-in hub with the real repositories' layouts, for all models."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from corral.catalog.entries import Catalog, Model, load_catalog
from corral.cli import cli
from corral.errors import CorralError
from corral.inventory.hosts import load_inventory, parse_host
from corral.lock.lock_file import Lock, read_lock, stale, wanted_by
from corral.lock.resolve import resolve
from corral.lock.shards import shard_set_problem
from corral.planning.fleet import plan_fleet
from corral.planning.load import load_planner
from lab import hub
from tests.headers import MadeHeaders
from tests.samples import EXAMPLES, ROOT
from tests.unit.hub_layouts import LAYOUTS, declared_digests, write_hole, write_layouts

SHIPPED = load_catalog(EXAMPLES / "catalog")
SHARD_COUNTS = {
    ("glm-4.5-air", "UD-Q4_K_XL"): 2,
    ("glm-4.5-air-ik", "IQ4_KSS"): 2,
    ("glm-4.5", "UD-Q2_K_XL"): 3,
    ("glm-4.5", "UD-Q4_K_XL"): 5,
    ("glm-4.5-air-fp8", "FP8"): 47,
    ("glm-4.5-air-bf16", "BF16"): 47,
    ("glm-4.5-fp8", "FP8"): 93,
    ("glm-4.6-fp8", "FP8"): 93,
    ("glm-4.7-fp8", "FP8"): 93,
    ("glm-4.7-flash-bf16", "BF16"): 48,
    ("glm-4-32b-0414-bf16", "BF16"): 14,
    ("glm-4.6", "UD-Q2_K_XL"): 3,
    ("glm-4.7", "UD-Q2_K_XL"): 3,
    ("glm-4.7", "Q4_K_M"): 5,
    ("glm-4.7", "UD-Q4_K_XL"): 5,
    ("glm-4.7-flash", "UD-Q4_K_XL"): 1,
    ("glm-5.2", "UD-IQ2_M"): 6,
    ("glm-5.2", "UD-IQ4_NL"): 9,
    ("glm-5.3-flash", "Q2_K"): 1,
    ("glm-5.3-flash", "Q4_K"): 1,
    ("glm-4.6v-flash", "Q4_K_M"): 1,
    ("glm-4-32b-0414", "IQ4_XS"): 1,
    ("glm-4-32b-0414", "Q4_K_M"): 1,
    ("glm-z1-32b-0414", "IQ4_XS"): 1,
    ("deepseek-v2.5", "Q4_0"): 4,
    ("deepseek-v2.5", "Q4_K_M"): 4,
    ("tiny-glm-moe", "F16"): 2,
    ("tiny-glm-moe", "Q8_0"): 1,
    ("tiny-glm-moe-safetensors", "BF16"): 2,
    ("tiny-glm-moe-safetensors", "F32"): 1,
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("every_commit_is_there")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("lab.hub_store._digests", declared_digests)
    write_layouts(tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with hub.running(root, log=io.StringIO()) as address:
        yield address


@pytest.fixture
def project(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalog and the production example as they are; only the hub is another."""
    folder = tmp_path / "project"
    for part in ("catalog", "inventories", "templates"):
        shutil.copytree(EXAMPLES / part, folder / part)
    (folder / "inventories" / "lab.py").unlink()
    (folder / "deploy.py").touch()
    shutil.copy(ROOT / "requirements.lock", folder)
    (folder / "group_data").mkdir()
    (folder / "group_data" / "all.py").write_text(f'hub_url = "{url}"\n')
    # No index is asked either.
    compiled = f"vllm==0.33.0 \\\n    --hash=sha256:{'0' * 64}\n"
    monkeypatch.setattr("corral.lock.requirements.compile_requirements", lambda *_: compiled)
    monkeypatch.chdir(folder)
    return folder


def locked(known: Catalog, url: str, *models: str) -> Lock:
    """The lock of a host with an instance of each model."""
    profile = known.profiles["glm-4.7-flash"]
    users = known.model_copy(update={"profiles": {"any": profile}})
    instances = [
        {"name": f"i{n}", "profile": "any", "model": m, "quant": next(iter(known.models[m].quants))}
        for n, m in enumerate(models)
    ]
    return resolve(Lock(), users, [parse_host("h", {"hub_url": url, "instances": instances})])


def refusal(url: str, **changes: object) -> CorralError:
    """Why GLM-4.7 with some changes cannot be locked."""
    model = Model.model_validate({**SHIPPED.models["glm-4.7"].model_dump(), **changes})
    known = SHIPPED.model_copy(update={"models": {"glm-4.7": model}})
    with pytest.raises(CorralError) as caught:
        locked(known, url, "glm-4.7")
    return caught.value


def test_the_layouts_are_those_of_the_catalogs_models() -> None:
    assert {model.repo for model in SHIPPED.models.values()} == LAYOUTS.keys()


def test_every_quant_of_every_model_is_one_whole_set(url: str) -> None:
    models = locked(SHIPPED, url, *SHIPPED.models).models
    weights = {
        (name, quant): [file for file in files if file.kind is None]
        for name, entry in models.items()
        for quant, files in entry.quants.items()
    }
    assert {key: len(files) for key, files in weights.items()} == SHARD_COUNTS
    for name in models:
        for files in (files for (model, _), files in weights.items() if model == name):
            sizes = LAYOUTS[SHIPPED.models[name].repo]
            assert {file.path: file.size_bytes for file in files}.items() <= sizes.items()
            assert [file.path for file in files] == sorted(file.path for file in files)


def test_a_projector_is_locked_beside_the_weights_and_is_one_file(url: str) -> None:
    entry = locked(SHIPPED, url, "glm-4.6v-flash").models["glm-4.6v-flash"]
    weights, projector = entry.quants["Q4_K_M"]
    assert (weights.kind, projector.kind) == (None, "projector")
    assert projector.path == "mmproj-GLM-4.6V-Flash-Q8_0.gguf"
    assert projector.size_bytes == 980_055_680
    model = SHIPPED.models["glm-4.6v-flash"]
    for pattern, found in (("mmproj-*.gguf", "F16.gguf, mmproj-"), ("none.gguf", "it has none")):
        quant = model.quants["Q4_K_M"].model_copy(update={"projector": pattern})
        changed = model.model_copy(update={"quants": {"Q4_K_M": quant}})
        models = {**SHIPPED.models, "glm-4.6v-flash": changed}
        with pytest.raises(CorralError) as caught:
            locked(SHIPPED.model_copy(update={"models": models}), url, "glm-4.6v-flash")
        assert found in caught.value.what
        assert caught.value.where.endswith("quants.Q4_K_M.projector")
    # A pattern over all files takes no projector for weights.
    every = model.quants["Q4_K_M"].model_copy(
        update={"files": "*Q4_K_M.gguf", "projector": "mm*Q8*"}
    )
    both = model.model_copy(update={"quants": {"Q4_K_M": every}})
    models = {**SHIPPED.models, "glm-4.6v-flash": both}
    again = locked(SHIPPED.model_copy(update={"models": models}), url, "glm-4.6v-flash")
    assert again.models["glm-4.6v-flash"].quants == entry.quants


def test_the_production_example_is_locked_and_every_host_is_planned(project: Path) -> None:
    done = CliRunner().invoke(cli, ["lock", "inventories/prod.py"])
    assert (done.exit_code, done.output[:20]) == (0, "corral.lock written."), done.output
    hosts = load_inventory(Path("inventories/prod.py"))
    planner = load_planner(project).model_copy(update={"headers": MadeHeaders()})
    assert (
        stale(read_lock(project / "corral.lock"), planner.catalog, wanted_by(hosts, SHIPPED)) == []
    )
    fleet = plan_fleet(hosts, planner)
    plans = [fleet.plan(host.name) for host in hosts]
    assert sum(len(plan.instances) for plan in plans) == 15
    sizes = {plan.host: sum(shard.size_bytes for shard in plan.shards) for plan in plans}
    assert sizes["rtx8000-01"] == 216_455_572_576
    again = CliRunner().invoke(cli, ["lock", "inventories/prod.py"])
    assert again.output == "corral.lock is current\n"


def test_without_a_lock_entry_a_plan_says_what_to_run(project: Path) -> None:
    shutil.copy(EXAMPLES / "corral.lock", project)
    error = CliRunner().invoke(cli, ["plan", "gpu-01", "-i", "inventories/prod.py"]).exception
    assert isinstance(error, CorralError)
    assert error.where == "gpu-01/glm-4.7-q2"
    assert error.what == "corral.lock has no entry for model glm-4.7, quant UD-Q2_K_XL"
    assert "run `corral lock inventories/prod.py`" in error.next_step


def test_a_missing_shard_is_named(root: Path, url: str) -> None:
    lost = "UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00002-of-00003.gguf"
    (root / "repos" / "unsloth/GLM-4.7-GGUF" / "main" / lost).unlink()
    error = refusal(url)
    assert error.where == "catalog/models/glm-4.7.toml: quants.UD-Q2_K_XL.files"
    assert f"UD-Q2_K_XL/*.gguf matches a set of shards without {lost}" in error.what


def test_a_pattern_over_two_models_is_refused(root: Path, url: str) -> None:
    error = refusal(url, quants={"Q4": {"files": "*Q4_K*/*.gguf"}})
    assert error.where == "catalog/models/glm-4.7.toml: quants.Q4.files"
    assert "matches 2 different models" in error.what
    assert "Q4_K_M/GLM-4.7-Q4_K_M-*-of-00005.gguf" in error.what
    folder = root / "repos" / "unsloth/GLM-4.7-GGUF" / "main"
    write_hole(folder / "Q4_K_M" / "GLM-4.7-Q4_K_M.gguf", 5)
    assert "matches 2 different models" in refusal(url).what


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["a.gguf"], None),
        (["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"], None),
        (["a-00002-of-00002.gguf"], "without a-00001-of-00002.gguf"),
        (["a-00001-of-00002.gguf", "b-00002-of-00002.gguf"], "2 different models"),
        (["a-00001-of-00002.gguf", "a-00002-of-00003.gguf"], "2 different models"),
        (["x/a-00001-of-00001.gguf", "y/a-00001-of-00001.gguf"], "2 different models"),
        (["a-00001-of-00009.gguf"], "a-00004-of-00009.gguf and 5 more"),
    ],
)
def test_a_model_is_one_file_or_every_shard_of_one_set(paths: list[str], said: str | None) -> None:
    problem = shard_set_problem(paths)
    assert problem is None if said is None else said in str(problem)
