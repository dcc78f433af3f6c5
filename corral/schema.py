"""The base class of all data, and validation errors of pydantic as CorralError."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from corral_shared.text import printable_line
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from corral.errors import CorralError

# An untrusted list may have a million entries of a wrong type.
_MOST_PROBLEMS = 20
_MOST_NEAR = 3


class Frozen(BaseModel):
    """Immutable data; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


T = TypeVar("T", bound=Frozen)


def parse(schema: type[T], data: Any, *, where: str, next_step: str) -> T:
    """Validate plain data; ``where`` names its file or host.

    Raises CorralError naming the offending keys, with the closest known key for a typo.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        what = _sentences(schema, error)
    raise CorralError(where, what, next_step)


def parse_json(schema: type[T], text: bytes, *, where: str, next_step: str) -> T:
    """Like parse() for untrusted JSON of any depth and encoding. Raises CorralError."""
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        what = _sentences(schema, error)
    raise CorralError(where, what, next_step)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for a near miss, else the known names; case does not matter.

    A name is near if it goes on where this one ends ("A100" of "A100 40GB"), or has its letters.
    """
    names = sorted(known)
    typed, spelled = name.lower(), {one.lower(): one for one in names}
    longer = [one for one in names if re.match(rf"{re.escape(typed)}[ /.-]", one.lower())]
    near = longer or [spelled[one] for one in difflib.get_close_matches(typed, spelled, n=1)]
    if near:
        quoted = [f'"{one}"' for one in near[:_MOST_NEAR]]
        return f" (did you mean {' or '.join(quoted)}?)"
    return f" (known: {', '.join(names)})" if names else " (none are known)"


def _sentences(schema: type[Frozen], error: ValidationError) -> str:
    shown = error.errors(include_input=False)[:_MOST_PROBLEMS]
    sentences = [printable_line(_sentence(schema, detail)) for detail in shown]
    if more := error.error_count() - len(shown):
        sentences.append(f"and {more} more")
    return "; ".join(sentences)


def _sentence(schema: type[Frozen], detail: Any) -> str:
    path = ".".join(str(part) for part in detail["loc"]) or "the whole"
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(detail["loc"][-1]), _known(schema, detail["loc"]))
        return f'unknown key "{path}"{hint}'
    if detail["type"] == "missing":
        return f'key "{path}" is missing'
    if detail["type"] == "json_invalid":
        return f"damaged: {detail['msg']}"
    if detail["type"] == "tuple_type":
        return f"{path}: Input should be a list"
    said = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "model_type":
        said = f"should be a table of {', '.join(_known(schema, (*detail['loc'], '')))}"
    if detail["type"] in ("model_type", "string_pattern_mismatch"):
        said += _described(schema, detail["loc"])
    return f"{path}: {said}"


def _described(schema: type[Frozen], loc: tuple[Any, ...]) -> str:
    """`` (what the key means)``, as pydantic names a class or an expression alone; or ""."""
    field = _fields(schema, loc).get(str(loc[-1])) if loc else None
    return f" ({field.description})" if field and field.description else ""


def _known(schema: type[Frozen], loc: tuple[Any, ...]) -> list[str]:
    """Keys that are allowed at ``loc``."""
    return list(_fields(schema, loc))


def _fields(schema: type[Frozen], loc: tuple[Any, ...]) -> dict[str, FieldInfo]:
    """Fields of the schema that the last part of ``loc`` is a key of."""
    model: type[BaseModel] = schema
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        nested = _nested(field.annotation) if field else None
        if nested:
            model = nested
    return model.model_fields


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The schema inside an annotation such as ``dict[str, Quant]``, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if nested := _nested(argument):
            return nested
    return None
