"""The reference of all keys, docs/reference/, made from the schemas: ``make reference``."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from corral.catalog.drivers import DriverSource
from corral.catalog.entries import Engine, Gpu, Model, Platform
from corral.catalog.inheritance import Inheritance
from corral.catalog.profile import Profile
from corral.catalog.programs import ProgramSource
from corral.cli import cli
from corral.cli.documents import documents
from corral.engines import engine_module, kinds
from corral.inventory.hosts import HostSpec
from corral.inventory.policy import PolicyKeys
from corral.inventory.run_options import RunOptions
from corral.schema import Frozen
from tests.samples import ROOT

FOLDER = ROOT / "docs" / "reference"
SCHEMAS = ROOT / "docs" / "schemas"
_UNITS = {"tokens": "tokens", "mib": "MiB", "gib": "GiB", "bytes": "bytes", "seconds": "s"}
_PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean"}
_LIMITS = ((Gt, "gt", "> "), (Ge, "ge", "≥ "), (Lt, "lt", "< "), (Le, "le", "≤ "))
_MADE = "<!-- Made by `make reference` from the schemas in corral/. -->\n\n"

CATALOG: dict[str, type[Frozen]] = {
    "engines": Engine,
    "models": Model,
    "gpus": Gpu,
    "platforms": Platform,
    "drivers": DriverSource,
    "programs": ProgramSource,
}


@dataclass(frozen=True)
class Key:
    """One row: ``path`` from the top of its file, ``field`` as its schema has it."""

    path: str
    field: FieldInfo

    @property
    def unit(self) -> str:
        """As its name says."""
        words = self.path.rpartition(".")[2].split("_")
        return next((_UNITS[word] for word in words if word in _UNITS), "")

    @property
    def default(self) -> str:
        """What counts where the key is not there."""
        if self.field.is_required():
            return "required"
        value = self.field.get_default(call_default_factory=True)
        if value is None:
            return "unset"
        return "as below" if isinstance(value, Frozen) else f"`{json.dumps(value)}`"

    @property
    def type(self) -> str:
        """What TOML or Python has for it, with its limits."""
        limits = [text for one in self.field.metadata for text in _limit(one)]
        return _limited(_type(self.field.annotation), limits)


def keys(schema: type[Frozen], above: str = "") -> Iterator[Key]:
    """Every key of a schema and of those inside it, in their order."""
    for name, field in schema.model_fields.items():
        yield Key(f"{above}{name}", field)
        for inner, marks in _inside(field.annotation):
            yield from keys(inner, f"{above}{name}{marks}.")


def pages() -> dict[str, str]:
    """File of docs/reference/ -> its text."""
    return {"profile.md": _profile(), "inventory.md": _inventory(), "catalog.md": _catalog()}


def _profile() -> str:
    engines = sorted(kinds())
    head = (
        "# Keys of a profile\n\n"
        f"{_MADE}A profile says how a model is served: `catalog/profiles/<name>.toml`. "
        "A key that an engine does not have is refused when it is set. "
        "“all” are keys that every engine has, and those that Corral itself reads.\n\n"
    )
    extra = [_engines(key, engines) for key in keys(Profile)]
    own = (
        "\n## Keys of its file alone\n\nErrors name the file that a value comes from. "
        "An instance of an inventory changes any key of the first table by `overrides`.\n\n"
    )
    tables = _table(list(keys(Profile)), "engines", extra), _table(list(keys(Inheritance)))
    return head + own.join(tables)


def _inventory() -> str:
    return (
        "# Keys of an inventory\n\n"
        f"{_MADE}Corral's keys in the data of a host, of a group or of all hosts "
        "(`group_data/all.py`). Beside them stand pyinfra's own, such as `ssh_hostname` and "
        "`_sudo`. `[]` is one of a list, `<name>` one of a table.\n\n"
        f"## The host\n\n{_table(list(keys(HostSpec)))}\n"
        "## The fleet\n\nHow hosts change, one after the other.\n\n"
        f"{_table(list(keys(PolicyKeys)))}\n"
        "## One run of a deploy\n\nUsually given as `--data NAME=VALUE`.\n\n"
        f"{_table(list(keys(RunOptions)))}"
    )


def _catalog() -> str:
    parts = [
        f"# Keys of the catalog\n\n{_MADE}"
        "One TOML file each. Profiles have [a page of their own](profile.md). "
        "`chat-templates/`, `patches/` and `references/` hold texts as they are.\n"
    ]
    for folder, schema in CATALOG.items():
        told = " ".join(str(schema.__doc__).split())
        told = re.sub(r" ?File: (\S+?),? as ", r" File: `\1`, as ", told)
        told = re.sub(r" ?File: ([^\s`]+?)\.(?= |$)", r" File: `\1`.", told)
        parts.append(f"## catalog/{folder}/\n\n{told}\n\n{_table(list(keys(schema)))}")
    return "\n".join(parts)


def _engines(key: Key, known: Sequence[str]) -> str:
    having = [kind for kind in known if _top(key) in engine_module(kind).flags.keys]
    return ", ".join(having) if having and len(having) < len(known) else "all"


def _top(key: Key) -> str:
    return re.split(r"[.\[]", key.path)[0]


def _table(rows: Sequence[Key], name: str = "", more: Sequence[str] = ()) -> str:
    heads = ["key", "type", "default", "unit", *([name] if name else []), "meaning"]
    lines = [heads, ["---"] * len(heads)]
    for number, key in enumerate(rows):
        extra = [more[number]] if name else []
        told = key.field.description or ""
        lines.append([f"`{key.path}`", key.type, key.default, key.unit, *extra, told])
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """A bar would end it."""
    return text.replace("|", "\\|")


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = [text for one in annotation.__metadata__ for text in _limit(one)]
        return _limited(_type(inner[0]), limits)
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inner if one is not type(None)))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"table of {_type(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return "table"
    return _PLAIN.get(annotation, "text")


def _limited(text: str, limits: Sequence[str]) -> str:
    return f"{text} {', '.join(limits)}" if limits else text


def _limit(one: Any) -> Iterator[str]:
    for kind, attribute, sign in _LIMITS:
        if isinstance(one, kind):
            yield f"{sign}{getattr(one, attribute)}"
    if isinstance(one, MinLen):
        yield "(not empty)"
    if isinstance(one, FieldInfo):
        for inner in one.metadata:
            yield from _limit(inner)


def _inside(annotation: Any, marks: str = "") -> Iterator[tuple[type[Frozen], str]]:
    """Schemas in an annotation, and how a path goes into them."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and origin is None:
        if issubclass(annotation, Frozen):
            yield annotation, marks
        return
    deeper = {tuple: "[]", dict: ".<name>"}.get(origin, "")
    for one in inner[1:] if origin is dict else inner:
        yield from _inside(one, marks + deeper)


def _commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """All commands as they are typed, those of groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above} {name}")
        elif command is not None:
            yield f"{above} {name}", command


def printing_json() -> list[str]:
    """Commands with --json, as they are typed."""
    return [
        name
        for name, command in _commands(cli, "corral")
        if any("--json" in option.opts for option in command.params)
    ]


def schemas() -> dict[str, str]:
    """File of docs/schemas/ -> the schema of a document."""
    printing_json()  # imports all commands
    return {
        one.file: json.dumps(one.schema, indent=1, ensure_ascii=False) + "\n"
        for one in documents().values()
    }


def main() -> None:
    """Write docs/reference/."""
    SCHEMAS.mkdir(exist_ok=True, parents=True)
    for file, text in schemas().items():
        (SCHEMAS / file).write_text(text)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
