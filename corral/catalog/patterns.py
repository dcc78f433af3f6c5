"""Tensor patterns: std::regex of C++ (ECMAScript) in the engines, re of Python here.

A pattern that both read alike is translated; any other is refused, since the engine would match
other tensors than Corral counts, or end at its start. Source: the grammar of ECMAScript 3 with the
classes of POSIX, as libstdc++ reads it; both engines search with std::regex_search.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Class of POSIX in brackets -> its characters; libstdc++ also has d, s and w.
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "d": "0-9",
    "digit": "0-9",
    "lower": "a-z",
    "s": " \\t\\n\\r\\f\\v",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "w": "a-zA-Z0-9_",
    "word": "a-zA-Z0-9_",
    "xdigit": "0-9a-fA-F",
}
_AHEAD = "(?!"
_GROUPS = ("(?:", _AHEAD)
_LETTER_ESCAPES = "dDwWsSbBtnrfv"
_IN_BRACKETS = "dDwWsStnrfv"
_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]+(,[0-9]*)?\}")


class PatternError(ValueError):
    """The text completes "the pattern ...": what is in it, and what to write instead."""


def translated(pattern: str) -> str:
    """The same pattern for Python's re. Raises PatternError."""
    found, at = "", 0
    groups: list[str] = []
    while at < len(pattern):
        part, at = _next(pattern, at)
        found += part
        groups += [part] if part.startswith("(") else []
        closed = groups.pop() if part == ")" and groups else ""
        if closed == _AHEAD and _QUANTIFIER.match(pattern, at):
            raise PatternError("repeats (?!...), which the engines do not know")
    try:
        re.compile(found, re.ASCII)
    except re.error as error:
        raise PatternError(f"is not a regular expression: {error}") from error
    return found


def compiled(pattern: str) -> re.Pattern[str]:
    """What finds the tensors that the engine finds. Raises PatternError."""
    return re.compile(translated(pattern), re.ASCII)


def _next(pattern: str, at: int) -> tuple[str, int]:
    """The translated part at a place, and the place after it."""
    rules: dict[str, Callable[[str, int], tuple[str, int]]] = {
        "[": _bracket,
        "\\": _escape,
        "(": _group,
        "{": _quantified,
        "*": _quantified,
        "+": _quantified,
        "?": _quantified,
        "$": lambda _, place: (r"\Z", place + 1),
    }
    rule = rules.get(pattern[at])
    if rule:
        return rule(pattern, at)
    if pattern[at] == "}":
        raise PatternError("has a } of its own: write \\}")
    return pattern[at], at + 1


def _group(pattern: str, at: int) -> tuple[str, int]:
    if not pattern.startswith("(?", at):
        return "(", at + 1
    for opening in _GROUPS:
        if pattern.startswith(opening, at):
            return opening, at + len(opening)
    what = f'has "{pattern[at : at + 4]}", which the engines do not know'
    raise PatternError(f"{what}: use (...), (?:...) or (?!...)")


def _quantified(pattern: str, at: int) -> tuple[str, int]:
    match = _QUANTIFIER.match(pattern, at)
    if not match:
        raise PatternError("has a { that is no number of repetitions: write \\{")
    end = match.end()
    if pattern.startswith("?", end):
        end += 1
    if end < len(pattern) and pattern[end] in "*+?":
        raise PatternError(f'has "{pattern[at : end + 1]}", which the engines do not know')
    return pattern[at:end], end


def _escape(pattern: str, at: int, known: str = _LETTER_ESCAPES) -> tuple[str, int]:
    following = pattern[at + 1 : at + 2]
    if not following:
        raise PatternError("ends with a \\")
    if following.isalnum() and following not in known:
        raise PatternError(f'has "\\{following}", which the engines read otherwise: leave it out')
    return pattern[at : at + 2], at + 2


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """A set of characters, in which [:digit:] is a class for the engines."""
    start, at = at, at + 1
    found = "["
    if pattern.startswith("^", at):
        found, at = "[^", at + 1
    if pattern.startswith("]", at):
        raise PatternError("has an empty set []: write \\] for the character")
    while at < len(pattern) and pattern[at] != "]":
        part, at = _member(pattern, at)
        found += part
    if at >= len(pattern):
        raise PatternError(f'has a set without end: "{pattern[start:]}"')
    return f"{found}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        return _escape(pattern, at, _IN_BRACKETS)
    if pattern.startswith("--", at):
        raise PatternError("has -- in a set, which the engines do not know: write -")
    if pattern[at] != "[":
        # Python warns of these, since they may get a meaning in sets.
        return (f"\\{pattern[at]}" if pattern[at] in "&~|" else pattern[at]), at + 1
    match = re.compile(r"\[:([a-z]+):\]").match(pattern, at)
    if match and match.group(1) in _CLASSES:
        return _CLASSES[match.group(1)], match.end()
    if pattern.startswith(("[:", "[.", "[="), at):
        known = ", ".join(f"[:{name}:]" for name in _CLASSES)
        raise PatternError(f"has a class that Corral does not know: use {known}")
    return r"\[", at + 1
