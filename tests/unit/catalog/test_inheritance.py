"""Profiles that extend others, and values that name their file."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.catalog.entries import Catalog, load_catalog
from corral.catalog.inheritance import MOST_EXTENDED, SourcedProfile, read_profiles
from corral.catalog.layers import Found
from corral.errors import CorralError
from corral.inventory.hosts import parse_host
from tests.samples import ROOT
from tests.unit.catalog.test_entries import PLANNER

BASE = """
model = "m"
quant = "q"
engine = "e"
context_tokens_per_slot = 100
slots = 2
kv_type_v = "q8_0"
cpu_moe_layers = 3
[sampling]
temperature = 0.5
top_p = 0.9
"""


def catalog(folder: Path, profiles: dict[str, str], *, tolerant: bool = False) -> Catalog:
    below = folder / "catalog" / "profiles"
    below.mkdir(parents=True)
    for name, text in profiles.items():
        (below / f"{name}.toml").write_text(text)
    return load_catalog(below.parent, tolerant=tolerant)


def refusal(folder: Path, profiles: dict[str, str]) -> CorralError:
    with pytest.raises(CorralError) as caught:
        catalog(folder, profiles)
    return caught.value


def test_a_profile_has_the_keys_of_what_it_extends_and_its_own_win(tmp_path: Path) -> None:
    child = 'extends = "base"\nslots = 4\n[sampling]\ntop_p = 0.1\n'
    found = catalog(tmp_path, {"base": BASE, "child": child}).profiles
    assert found["child"].slots == 4
    assert found["child"].context_tokens_per_slot == 100
    assert found["child"].sampling.temperature == 0.5
    assert found["child"].sampling.top_p == 0.1
    assert found["base"].slots == 2
    assert found["base"].sampling.top_p == 0.9


def test_each_value_knows_its_file(tmp_path: Path) -> None:
    child = 'extends = "base"\nslots = 4\n[sampling]\ntop_p = 0.1\n'
    sources = catalog(tmp_path, {"base": BASE, "child": child}).sources["child"]
    assert sources["slots"] == sources["sampling.top_p"] == "catalog/profiles/child.toml"
    assert sources["model"] == sources["sampling.temperature"] == "catalog/profiles/base.toml"


def test_an_unset_key_goes_back_to_its_default(tmp_path: Path) -> None:
    child = 'extends = "base"\nunset = ["cpu_moe_layers", "sampling.top_p"]\nplacement = "cpu"\n'
    found = catalog(tmp_path, {"base": BASE, "child": child})
    profile = found.profiles["child"]
    assert profile.cpu_moe_layers is None
    assert profile.sampling.top_p is None
    assert profile.sampling.temperature == 0.5
    assert "cpu_moe_layers" not in found.sources["child"]
    other = 'extends = "base"\nunset = ["sampling.top_p", "sampling"]\n'
    again = catalog(tmp_path / "other", {"base": BASE, "child": other})
    assert again.profiles["child"].sampling.temperature is None


def test_a_mistake_that_two_files_make_together_names_both(tmp_path: Path) -> None:
    error = refusal(
        tmp_path, {"base": BASE, "child": 'extends = "base"\nflash_attention = false\n'}
    )
    assert error.where == "catalog/profiles/child.toml"
    assert 'kv_type_v = "q8_0" comes from catalog/profiles/base.toml' in error.what
    assert "flash_attention = false comes from" not in error.what
    assert error.next_step == "edit catalog/profiles/child.toml"


def test_a_mistake_of_the_extended_file_is_its_own(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"zbase": BASE + "top_pp = 1\n", "child": 'extends = "zbase"\n'})
    assert error.where == "catalog/profiles/zbase.toml"
    assert 'unknown key "sampling.top_pp"' in error.what


def test_a_tolerant_reader_loses_only_what_extends_a_mistake(tmp_path: Path) -> None:
    found = catalog(
        tmp_path,
        {"good": BASE, "base": BASE + "x = 1\n", "child": 'extends = "base"\n'},
        tolerant=True,
    )
    assert set(found.profiles) == {"good"}
    assert set(found.broken) == {"profile base", "profile child"}
    with pytest.raises(CorralError, match=r"base\.toml.*sampling\.x"):
        found.profile("child", where="lab-1/chat")


@pytest.mark.parametrize(
    ("profiles", "what"),
    [
        ({"child": 'extends = "bass"\n', "base": BASE}, 'did you mean "base"'),
        ({"a": 'extends = "a"\n'}, "would extend itself: a -> a"),
        (
            {"a": 'extends = "b"\n', "b": 'extends = "c"\n', "c": 'extends = "a"\n'},
            "would extend itself: a -> b -> c -> a",
        ),
        ({"child": 'extends = ["base"]\n', "base": BASE}, "extends: Input should be a valid str"),
        ({"child": BASE.replace("\nslots", '\nunset = ["quant"]\nslots')}, "does not set"),
        (
            {"child": 'extends = "base"\nunset = ["slotz"]\n', "base": BASE},
            'does not set "slotz" (did you mean "slots"?)',
        ),
        (
            {"child": 'extends = "base"\nunset = ["quant"]\n', "base": BASE},
            'key "quant" is missing',
        ),
    ],
)
def test_a_wrong_line_of_profiles_is_refused(
    tmp_path: Path, profiles: dict[str, str], what: str
) -> None:
    assert what in refusal(tmp_path, profiles).what


def test_a_long_line_of_profiles_is_refused(tmp_path: Path) -> None:
    line = {f"p{n}": f'extends = "p{n + 1}"\n' for n in range(MOST_EXTENDED)}
    fine = catalog(tmp_path / "fine", {**line, f"p{MOST_EXTENDED}": BASE})
    assert fine.profiles["p0"].slots == 2
    line[f"p{MOST_EXTENDED}"] = f'extends = "p{MOST_EXTENDED + 1}"\n'
    error = refusal(tmp_path / "long", {**line, f"p{MOST_EXTENDED + 1}": BASE})
    assert f"more than {MOST_EXTENDED} profiles" in error.what


def test_the_air_profiles_plan_what_they_planned_when_each_was_written_out() -> None:
    files = sorted((ROOT / "tests" / "data" / "air-profiles").glob("*.toml"))
    assert len(files) == 4
    shipped = PLANNER.catalog.profiles
    written_out = {file.stem: one.profile for file in files for one in _read(file).values()}
    catalog = PLANNER.catalog.model_copy(update={"profiles": {**shipped, **written_out}})
    before = PLANNER.model_copy(update={"catalog": catalog})
    for name, profile in written_out.items():
        one = {"name": "air", "profile": name, "port": 8001}
        desk = parse_host("desk-01", {"instances": [one]})
        assert shipped[name] == profile, name
        assert PLANNER.plan_host(desk) == before.plan_host(desk), name


def _read(file: Path) -> dict[str, SourcedProfile]:
    return read_profiles({file.stem: [Found(file, "")]}, None)
