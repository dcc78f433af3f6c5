"""docs/reference/ says what the schemas say, of every key."""

from __future__ import annotations

import pytest

from corral.catalog.profile import Profile
from corral.inventory.hosts import _KEYS
from corral.schema import Frozen
from tests import reference
from tests.samples import ROOT

PAGES = reference.pages()


def rows(page: str) -> dict[str, list[str]]:
    """Key -> the other cells of its row."""
    lines = [line.strip("|\n").split(" | ") for line in PAGES[page].splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines if len(line) > 4]
    return {line[0].strip("`"): line[1:] for line in cells}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_current(page: str) -> None:
    assert (reference.FOLDER / page).read_text() == PAGES[page], "run `make reference`"


def test_there_is_no_other_page() -> None:
    assert {path.name for path in reference.FOLDER.iterdir()} == PAGES.keys()


@pytest.mark.parametrize("schema", [Profile, *_KEYS, *reference.CATALOG.values()])
def test_every_key_says_what_it_means(schema: type[Frozen]) -> None:
    silent = [key.path for key in reference.keys(schema) if not key.field.description]
    assert not silent


def test_every_key_that_host_data_may_have_is_there() -> None:
    assert {key for schema in _KEYS for key in schema.model_fields} <= rows("inventory.md").keys()


def test_a_row_says_type_default_unit_and_engines() -> None:
    profile = rows("profile.md")
    meaning = "number of first layers whose experts are in host memory"
    llama = "ik_llama.cpp, llama.cpp"
    assert profile["cpu_moe_layers"] == ["integer > 0", "unset", "", llama, meaning]
    assert profile["batch_tokens"][:4] == ["integer > 0", "`2048`", "tokens", "all"]
    assert profile["mla_mode"][3] == "ik_llama.cpp"
    assert profile["golden[].prompt"][:2] == ["text (not empty)", "required"]
    inventory = rows("inventory.md")
    assert inventory["instances[].port"][0] == "integer > 0, < 65536"
    assert inventory["gateway.aliases.<name>.weights"][0] == "table of integer ≥ 0, ≤ 100"
    assert inventory["instances[].drain_seconds"][1:3] == ["`60`", "s"]
    assert rows("catalog.md")["quants.<name>.files"][1] == "required"


def test_the_readme_leads_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"docs/reference/{page}" in readme for page in PAGES)
