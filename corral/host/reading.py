"""Reading of answers of hosts: JSON whose depth, numbers and shape are checked here, once."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeVar

from corral_shared.text import printable_line
from pydantic import TypeAdapter, ValidationError

from corral.errors import CorralError

_LARGEST = 2**63
_SHOWN_CHARACTERS = 80
_SHOWN_PROBLEMS = 3

T = TypeVar("T")


class UnreadableError(ValueError):
    """An answer that is not JSON, or not of its shape; the text is one printable line."""


def read_answer(shape: TypeAdapter[T], text: str) -> T:
    """The answer of a host: all of ``text``, or its last line.

    Start-up files of a shell may print something before it. Raises UnreadableError.
    """
    return _shaped(shape, _document(text))


def as_answer(shape: TypeAdapter[T], document: Any, *, where: str) -> T:
    """Validate a part of an answer that was read already. Raises CorralError."""
    try:
        return _shaped(shape, document)
    except UnreadableError as error:
        raise unreadable(where, error) from error


def unreadable(where: str, error: UnreadableError) -> CorralError:
    """The error for an unreadable answer."""
    step = "deploy the host, so that its helper is this checkout's, or check what answers there"
    return CorralError(where, f"its answer is not readable: {error}", step)


def _shaped(shape: TypeAdapter[T], document: Any) -> T:
    try:
        # A lone surrogate is valid in JSON alone.
        text = json.dumps(document, ensure_ascii=False).encode(errors="replace")
        return shape.validate_json(text)
    except ValidationError as error:
        raise UnreadableError(_problems(error)) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(_short(error)) from error


def _document(text: str) -> Any:
    lines = text.strip().splitlines()
    for candidate in (text, lines[-1] if lines else ""):
        try:
            return json.loads(
                candidate, parse_int=_integer, parse_float=_number, parse_constant=_refuse
            )
        except RecursionError:
            raise UnreadableError("it is nested too deeply") from None
        except ValueError:
            continue
    raise UnreadableError(f"no JSON in {_short(text)!r}")


def _integer(digits: str) -> int:
    """An integer; larger ones are not exact as floats."""
    if len(digits) > len(str(_LARGEST)) or abs(int(digits)) >= _LARGEST:
        raise ValueError("a number is too large")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _problems(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{_short('.'.join(map(str, one['loc'])) or 'the whole')}: {_short(one['msg'])}"
        for one in details[:_SHOWN_PROBLEMS]
    ]
    more = len(details) - len(shown)
    return "; ".join(shown) + (f" and {more} more" if more else "")


def _short(text: object) -> str:
    return printable_line(str(text)[:_SHOWN_CHARACTERS])
