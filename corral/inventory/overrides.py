"""Write overrides of an instance into its inventory file, where that is safe.

An inventory is a Python program, and one text of an instance may stand for several hosts. So an
edit is tried on a copy that is run as the inventory is: it counts only if this instance alone
changes, and exactly as it should.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corral.errors import CorralError
from corral.inventory.hosts import InstanceSpec, load_inventory

_WIDTH = 100
_KEY = "overrides"


def with_overrides(
    path: Path, host: str, instance: str, overrides: Mapping[str, Any]
) -> str | None:
    """The text of an inventory file in which an instance has these overrides, and no others.

    None where no such edit of one place is certain to change this instance alone.
    Raises CorralError for a file that cannot be read or run.
    """
    text = _read(path)
    before = _specs(path)
    if (host, instance) not in before:
        return None
    changed = before[host, instance].model_copy(update={_KEY: dict(overrides)})
    wanted = {**before, (host, instance): changed}
    fitting = [edit for edit in _edits(text, instance, overrides) if _after(path, edit) == wanted]
    return fitting[0] if len(fitting) == 1 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorralError(str(path), f"cannot be read: {error}", f"edit {path}") from error


Specs = dict[tuple[str, str], InstanceSpec]


def _specs(path: Path) -> Specs:
    """Host and instance -> spec. Raises CorralError."""
    hosts = load_inventory(path)
    return {(host.name, one.name): one for host in hosts for one in host.spec.instances}


def _after(path: Path, text: str) -> Specs | None:
    """The same of an edited copy, beside links to all that the inventory has beside it."""
    with tempfile.TemporaryDirectory() as folder:
        for other in path.resolve().parent.iterdir():
            if other.name != path.name:
                (Path(folder) / other.name).symlink_to(other)
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        try:
            return _specs(copy)
        except CorralError:
            return None


def _edits(text: str, instance: str, overrides: Mapping[str, Any]) -> Iterator[str]:
    """The text with the overrides in one of the places that may be the instance's."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict) and _value(node, "name") == instance:
            yield _edited(text, node, overrides)


def _value(node: ast.Dict, key: str) -> Any:
    """The plain value of a key, None where it has none."""
    found = _node(node, key)
    return found.value if isinstance(found, ast.Constant) else None


def _node(node: ast.Dict, key: str) -> ast.expr | None:
    pairs = zip(node.keys, node.values, strict=True)
    return next((v for k, v in pairs if isinstance(k, ast.Constant) and k.value == key), None)


def _edited(text: str, node: ast.Dict, overrides: Mapping[str, Any]) -> str:
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + column

    raw = text.encode()
    if (old := _node(node, _KEY)) is not None:
        begin = offset(old.lineno, old.col_offset)
        end = offset(old.end_lineno or old.lineno, old.end_col_offset or 0)
        indent = _indent_of(lines[old.lineno - 1])
        return (raw[:begin] + _text(overrides, indent).encode() + raw[end:]).decode()
    last = node.values[-1]
    end = offset(last.end_lineno or last.lineno, last.end_col_offset or 0)
    first = next((key for key in node.keys if key is not None), None)
    own_lines = first is not None and first.lineno != node.lineno
    indent = _indent_of(lines[first.lineno - 1]) if first is not None and own_lines else ""
    space = f"\n{indent}" if own_lines else " "
    added = f',{space}"{_KEY}": {_text(overrides, indent)}'
    return (raw[:end] + added.encode() + raw[end:]).decode()


def _indent_of(line: bytes) -> str:
    text = line.decode()
    return text[: len(text) - len(text.lstrip())]


def _text(overrides: Mapping[str, Any], indent: str) -> str:
    """A literal on one line if it fits, else on several."""
    plain = _literal(dict(overrides))
    if len(indent) + len(plain) + len(_KEY) + 4 <= _WIDTH:
        return plain
    inner = f"{indent}    "
    rows = "".join(f"{inner}{_literal(k)}: {_literal(v)},\n" for k, v in overrides.items())
    return f"{{\n{rows}{indent}}}"


def _literal(value: Any) -> str:
    """Python's text of a plain value, with double quotes where nothing is in their way."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str) and not {'"', "\\"} & set(value) and value.isprintable():
        return f'"{value}"'
    return repr(value)
