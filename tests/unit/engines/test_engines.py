"""Engines: one table of flags each, from which all that is known of a flag follows."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module, kinds
from corral.errors import CorralError
from corral.planning.load import read_catalog
from tests.samples import EXAMPLES, ROOT
from tests.unit.helper_modules import helper_module

KINDS = sorted(kinds())
# Keys that no flag says: they are for planning, for the gate, or words of the server themselves.
WITHOUT_FLAG = {
    *("quant", "engine", "placement", "gpu_reserve_mib", "extra_flags", "listen"),
    *("ready_timeout_seconds", "golden", "speed", "perplexity", "soak_seconds"),
    *("probe_tool_call", "probe_reasoning", "watchdog", "numa_memory", "numa_nodes"),
    "tune_kv_types",
}


def test_every_key_of_a_profile_is_a_flag_of_some_engine_or_none_at_all() -> None:
    said = {key for kind in KINDS for key in engine_module(kind).flags.keys}
    assert said | WITHOUT_FLAG == Profile.model_fields.keys()
    assert not said & WITHOUT_FLAG


@pytest.mark.parametrize("kind", KINDS)
def test_a_spelling_belongs_to_one_row(kind: EngineKind) -> None:
    rows = engine_module(kind).flags.rows
    names = [name for row in rows for name in (row.name, *row.also)]
    assert sorted(names) == sorted(set(names))
    assert all(row.decided_by for row in rows)


def catalog_with(folder: Path, file: str, old: str, new: str) -> Path:
    shutil.copytree(EXAMPLES / "catalog", folder / "catalog")
    path = folder / "catalog" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


def test_an_unknown_kind_of_engine_names_its_file_and_the_nearest(tmp_path: Path) -> None:
    file = "engines/llama.cpp.toml"
    root = catalog_with(tmp_path, file, 'kind = "llama.cpp"', 'kind = "lama.cpp"')
    with pytest.raises(CorralError) as caught:
        read_catalog(root)
    assert caught.value.where == f"catalog/{file}"
    assert 'no kind of engine "lama.cpp" (did you mean "llama.cpp"?)' in caught.value.what


def test_an_unknown_kind_is_a_mistake_of_those_that_use_it(tmp_path: Path) -> None:
    file = "engines/llama.cpp.toml"
    root = catalog_with(tmp_path, file, 'kind = "llama.cpp"', 'kind = "lama.cpp"')
    catalog = read_catalog(root, tolerant=True)
    assert catalog.engine("ik_llama.cpp", where="x").kind == "ik_llama.cpp"
    with pytest.raises(CorralError, match='no kind of engine "lama.cpp"'):
        catalog.engine("llama.cpp", where="x")


def test_a_quant_for_an_unknown_kind_is_a_mistake_of_its_model(tmp_path: Path) -> None:
    file = "models/glm-4.5-air-ik.toml"
    root = catalog_with(tmp_path, file, 'engine = "ik_llama.cpp"', 'engine = "ik"')
    with pytest.raises(CorralError, match=f"catalog/{file}: quants.*engine: there is no kind"):
        read_catalog(root)
    with pytest.raises(CorralError, match="there is no kind"):
        read_catalog(root, tolerant=True).model("glm-4.5-air-ik", where="x")


def test_the_helper_has_every_kind_of_the_controller_and_says_so_of_others() -> None:
    engines = helper_module("engines")
    assert engines.ENGINES.keys() == set(KINDS)
    assert all(engines.of({"kind": kind}).kind == kind for kind in KINDS)
    with pytest.raises(
        helper_module("system.commands").HostError, match=r"no engine of kind x\. Next: deploy"
    ):
        engines.of({"kind": "x"})


def test_a_plan_that_was_kept_before_plans_named_a_kind_is_a_llama_servers() -> None:
    assert helper_module("engines").of({"kind": ""}).program == "bin/llama-server"
    assert helper_module("engines").of({}).program == "bin/llama-server"


# Names of one kind of engine: its programs, its routes, its fields, its variables.
OF_AN_ENGINE = re.compile(
    r"llama-(server|bench|batched|sweep|fit|perplexity)|llamacpp:|LLAMA_ARG|GGML_|/props|/slots"
    r"|predicted_per_second|is_processing|cache_prompt|llama\.cpp/config|--load-mode|--spec-type"
)
# Rooms that are about one: the engines' own, and the tiny model.
ROOMS = ("corral/engines/", "files/corral_host/engines/", "corral/smoke_model/")


def strings(path: Path) -> Iterator[str]:
    """Texts of a module, without those that stand alone: docstrings."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_what_is_of_one_engine_stands_in_its_room_alone() -> None:
    found = {}
    for folder in ("corral", "files/corral_host", "deploys", "operations", "facts"):
        for path in (ROOT / folder).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            said = [text for text in strings(path) if OF_AN_ENGINE.search(text)]
            if said and not name.startswith(ROOMS):
                found[name] = said
    # As an earlier version wrote the plans that it left on hosts.
    found.pop("files/corral_host/plans/fields.py", None)
    assert found == {}


def test_no_room_but_the_engines_asks_for_a_kind_by_name() -> None:
    named = "|".join(re.escape(kind) for kind in KINDS)
    asks = re.compile(rf'kind\s*(==|!=|in)\s*\(?"({named})"')
    found = [
        str(path.relative_to(ROOT))
        for folder in ("corral", "files/corral_host", "deploys", "operations")
        for path in (ROOT / folder).rglob("*.py")
        if asks.search(path.read_text())
    ]
    assert found == []
