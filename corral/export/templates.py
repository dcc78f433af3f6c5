"""Texts of exports: templates place values, quoted for those who read them, and decide nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from corral.templating import text_environment

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@%+-]+")
_SPECIAL_IN_QUOTES = re.compile(r'(["\\$`])')


def render(name: str, templates: Path, **values: object) -> str:
    """The text of templates/``name`` with these values in their places."""
    return text_environment(templates, yaml=yaml).get_template(name).render(**values)


def quote(text: str) -> str:
    """One word, read alike by a shell, by EnvironmentFile= and where systemd splits a variable.

    systemd.exec(5), "EnvironmentFile="; systemd.service(5), "Command lines".
    """
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _SPECIAL_IN_QUOTES.sub(r"\\\1", text) + '"'


def joined(words: Iterable[str]) -> str:
    """Words in one line, for `eval` and for systemd to split again."""
    return " ".join(map(quote, words))


def yaml(text: str) -> str:
    """A double-quoted scalar for compose, which would put variables in place of ``$NAME``."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
