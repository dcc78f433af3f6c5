"""What --json prints: each document has a schema that is current, and nothing else is printed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from corral.cli import _MODULES
from corral.cli.documents import Document, documents, without
from corral.cli.instances import _STATUS
from corral.cli.views.gpus import gpu_rows
from corral.host.answers import GpuUse, ObservedInstance, ObservedInstances
from tests.reference import SCHEMAS, printing_json, schemas
from tests.samples import CHAT, ROOT, host
from tests.unit.rollout_samples import found_instance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def all_commands() -> None:
    """Each command's module is imported, so that its documents are known."""
    printing_json()


def test_every_command_with_json_has_a_document_and_no_other_is_described() -> None:
    typed = printing_json()
    described = {command for one in documents().values() for command in one.commands}
    assert sorted(set(typed)) == sorted(described)


def test_every_command_that_prints_a_table_prints_json_too() -> None:
    """By the modules of commands: those that call the one function that prints tables."""
    tables = re.compile(r"^from corral\.terminal import .*\bshow\b", re.MULTILINE)
    printing = {name.split()[1] for name in printing_json()}
    found = {
        name: module
        for name, module in _MODULES.items()
        if tables.search((ROOT / f"{module.replace('.', '/')}.py").read_text())
    }
    assert len(found) > 10
    # Two change a name of what `history` prints, and what `status` shows is read by line.
    assert set(found) - printing == {"pin", "unpin", "logs"}


def test_no_table_is_printed_where_json_was_asked_for() -> None:
    """In each function that knows of --json, a table is printed only where it is not."""
    seen = 0
    for module in set(_MODULES.values()):
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        for function in (one for one in tree.body if isinstance(one, ast.FunctionDef)):
            if "as_json" in {one.arg for one in function.args.args + function.args.kwonlyargs}:
                seen += 1
                wrong = tables_in_json(function.body)
                assert not wrong, f"{module}.{function.name} prints a table in line {wrong}"
    assert seen > 15


def tables_in_json(body: Sequence[ast.stmt]) -> list[int]:
    """Lines of a block that print a table with --json: those that no check of it excludes."""
    found: list[int] = []
    for statement in body:
        if isinstance(statement, ast.If):
            asks = any(
                isinstance(n, ast.Name) and n.id == "as_json" for n in ast.walk(statement.test)
            )
            found += tables_in_json(statement.body)
            found += [] if asks else tables_in_json(statement.orelse)
            if asks and isinstance(statement.body[-1], ast.Return | ast.Raise):
                break
            continue
        calls = [one.func for one in ast.walk(statement) if isinstance(one, ast.Call)]
        found += [one.lineno for one in calls if isinstance(one, ast.Name) and one.id == "show"]
    return found


def test_the_schemas_are_current() -> None:
    """A field that is gone, or means something else, is another version."""
    found = {path.name: path.read_text() for path in SCHEMAS.iterdir()}
    assert found == schemas(), "run `make reference`"


@pytest.mark.parametrize("name", [path.stem for path in sorted(SCHEMAS.iterdir())])
def test_a_schema_names_its_document_and_the_command(name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    assert schema["$id"] == f"{name}.json"
    document = documents()[schema["title"]]
    assert all(f"{command} --json" in schema["description"] for command in document.commands)


def keys_of(schema: Any) -> set[str]:
    """All keys of objects in a schema."""
    if isinstance(schema, list):
        return {key for one in schema for key in keys_of(one)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own | {key for one in schema.values() for key in keys_of(one)}


@pytest.mark.parametrize("name", ["status", "engine-list", "engine-archives", "history", "diff"])
def test_tables_have_no_raw_facts_and_no_digests_of_keys(name: str) -> None:
    keys = keys_of(documents()[name].schema)
    assert keys
    for unwanted in ("key_digest", "plan", "manifest", "gpu_host", "cpu_flags", "unit_text"):
        assert unwanted not in keys


def test_a_document_prints_its_fields_alone(capsys: pytest.CaptureFixture[str]) -> None:
    observed = found_instance(plan={"unit_text": "secret"}, installed_generation="g1")
    gpu = GpuUse(index=0, name="A100", units={"corral-chat.service": 7})
    answer = ObservedInstances(instances={"chat": observed}, gpus=(gpu,))
    rows = gpu_rows(host(CHAT), answer)
    status = {"instances": answer.instances, "gpus": rows, "gpu_problem": ""}
    _STATUS.show({"lab-1": status, "lab-2": "no answer"})
    shown = json.loads(capsys.readouterr().out)
    assert shown["lab-2"] == "no answer"
    assert set(shown["lab-1"]["instances"]["chat"]) == set(ObservedInstance.model_fields) - {"plan"}
    assert shown["lab-1"]["gpus"][0]["holders"][0]["held_mib"] == 7


def test_a_value_of_another_shape_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError):
        _STATUS.show({"lab-1": {"instances": 7}})
    assert capsys.readouterr().out == ""


def test_a_model_without_some_fields_keeps_the_others() -> None:
    row = without(GpuUse, "units", more=int)
    assert set(row.model_fields) == (set(GpuUse.model_fields) - {"units"}) | {"more"}
    made = Document("made", TypeAdapter(dict[str, int]), "corral made", about="A test.")
    assert made.file == "made.v1.json"
    documents_before = documents()
    assert documents_before.pop("made") is made
    from corral.cli import documents as module

    del module._KNOWN["made"]
