"""Documents that commands print with --json: each has a name, a version and a schema.

A field may be added to a version. Where one is removed or means something else, the version rises.
The schemas are in docs/schemas/, made by ``make reference``.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, create_model

from corral.terminal import echo_json

T = TypeVar("T")


class Document(Generic[T]):
    """One kind of document; ``commands``: those that print it, as they are typed."""

    def __init__(
        self, name: str, shape: TypeAdapter[T], *commands: str, about: str, version: int = 1
    ) -> None:
        self.name = name
        self.version = version
        self.commands = commands
        self._shape = shape
        self._about = about
        _KNOWN[name] = self

    @property
    def file(self) -> str:
        """The file of its schema."""
        return f"{self.name}.v{self.version}.json"

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        found = self._shape.json_schema(mode="serialization", by_alias=True)
        about = f"{self._about} Printed by: {', '.join(f'{one} --json' for one in self.commands)}"
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": self.file,
            **found,
            "title": self.name,
            "description": about,
        }

    def show(self, value: Any) -> None:
        """Print a value of this shape; models or plain data."""
        checked = self._shape.validate_python(value)
        echo_json(self._shape.dump_python(checked, mode="json", by_alias=True))


def rows_of(row: Any) -> TypeAdapter[Any]:
    """The shape of a list of rows."""
    return TypeAdapter(list[row])


def rows_by_host(row: Any) -> TypeAdapter[Any]:
    """The shape of host -> rows, or why there are none."""
    return TypeAdapter(dict[str, list[row] | str])


def by_host(one: Any) -> TypeAdapter[Any]:
    """The shape of host -> one object, or why there is none."""
    return TypeAdapter(dict[str, one | str])


_KNOWN: dict[str, Document[Any]] = {}


def documents() -> dict[str, Document[Any]]:
    """Name -> document, of the commands that are imported."""
    return dict(sorted(_KNOWN.items()))


def without(model: type[BaseModel], *fields: str, **more: Any) -> type[BaseModel]:
    """The model without some fields, and with ``more``: field -> its type."""
    kept = {n: (f.annotation, f) for n, f in model.model_fields.items() if n not in fields}
    added = {name: (kind, ...) for name, kind in more.items()}
    made: type[BaseModel] = create_model(
        f"{model.__name__}Row",
        __config__={
            "frozen": True,
            "extra": "ignore",
            "populate_by_name": True,
            "from_attributes": True,
        },
        __doc__=model.__doc__,
        **{**kept, **added},  # type: ignore[call-overload]
    )
    return made
