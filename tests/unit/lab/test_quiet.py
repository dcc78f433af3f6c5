"""Servers that run inside the tests write nothing to the standard error that other tests read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


def handlers() -> list[tuple[str, ast.ClassDef]]:
    """Each class of HTTP handlers in lab/ and tests/, with where it is."""
    return [
        (f"{path.relative_to(CHECKOUT)}:{node.lineno}", node)
        for top in ("lab", "tests")
        for path in sorted((CHECKOUT / top).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("HTTPRequestHandler") for base in node.bases)
    ]


@pytest.mark.parametrize("node", [pytest.param(node, id=where) for where, node in handlers()])
def test_a_handler_logs_nothing(node: ast.ClassDef) -> None:
    """An idle connection that times out is logged while another test runs on that worker."""
    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    assert "log_message" in methods
