"""Inject the faults that a test requested into the stand-in hub's answers."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import repeat
from pathlib import Path

from lab.faults import FILE_NAME, Rule, parse
from lab.hub_api import Answer, refusal

WRONG_COMMIT = "bad0" * 10
# Kinds that close the connection.
CLOSES = frozenset({"cut", "down", "html", "text", "endless", "bomb"})
_RETRY_AFTER_SECONDS = "1"
_CHUNK_BYTES = 1024**2
_LOGIN_PAGE = b"<!DOCTYPE html><title>Welcome</title><p>Log in to use this network."
_HOSTILE_HEADERS = {
    "html": {"Content-Type": "text/html"},
    "text": {"Content-Type": "application/json"},
    "bomb": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
}


class FaultBook:
    """The current rules, read again for each request, and how often each has applied."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE_NAME
        self._used: Counter[int] = Counter()
        self._version: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def take(self, path: str, fits: Callable[[Rule], bool]) -> Rule | None:
        """The first rule that matches a request and is not used up; it is counted as used.

        Raises pydantic.ValidationError if the rules cannot be read.
        """
        with self._lock:
            for number, rule in enumerate(self._rules()):
                used_up = rule.times is not None and self._used[number] >= rule.times
                if not used_up and fnmatchcase(path, rule.match) and fits(rule):
                    self._used[number] += 1
                    return rule
        return None

    def _rules(self) -> tuple[Rule, ...]:
        try:
            with self._path.open("rb") as file:
                text, status = file.read(), self._path.stat()
        except FileNotFoundError:
            return ()
        if (version := (status.st_ino, status.st_mtime_ns)) != self._version:
            self._version = version
            self._used.clear()
        return parse(text)


def fits(rule: Rule, method: str, answer: Answer) -> bool:
    """Whether a fault can affect an answer; if not, it must not be used up."""
    if rule.kind in ("cut", "flip", "slow"):
        return answer.file is not None and method == "GET"
    if rule.kind == "short":
        return answer.file is not None or answer.linked_size_bytes is not None
    if rule.kind == "wrong_commit":
        return answer.commit is not None
    if rule.kind == "linked_size":
        return answer.linked_size_bytes is not None
    return True


def spoil(answer: Answer, rule: Rule) -> Answer:
    """The answer with the faults of its headers; faults of the body are in hub_body.py."""
    if rule.kind == "wrong_commit":
        document = answer.document and {**answer.document, "sha": WRONG_COMMIT}
        return replace(answer, commit=WRONG_COMMIT, document=document)
    if rule.kind == "status" and rule.code is not None:
        refused = refusal(rule.code, "a fault that a test asked for")
        return replace(refused, headers={**refused.headers, "Retry-After": _RETRY_AFTER_SECONDS})
    if rule.kind == "short" and rule.size_bytes is not None:
        return _shortened(answer, rule.size_bytes)
    if rule.kind == "linked_size" and rule.text is not None:
        return replace(answer, headers={**answer.headers, "X-Linked-Size": rule.text})
    if body := _hostile_body(rule):
        return Answer(200, _HOSTILE_HEADERS.get(rule.kind, {}), body=body)
    return answer


def _hostile_body(rule: Rule) -> Iterator[bytes] | None:
    if rule.kind == "html":
        return iter([_LOGIN_PAGE])
    if rule.kind == "text" and rule.text is not None:
        return iter([rule.text.encode()])
    if rule.kind == "endless":
        return repeat(b" " * _CHUNK_BYTES)
    if rule.kind == "bomb" and rule.size_bytes is not None:
        return _compressed(rule.size_bytes)
    return None


def _compressed(size_bytes: int) -> Iterator[bytes]:
    """Spaces, with which JSON may begin, as gzip."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for start in range(0, size_bytes, _CHUNK_BYTES):
        yield packer.compress(b" " * min(_CHUNK_BYTES, size_bytes - start))
    yield packer.flush()


def _shortened(answer: Answer, size_bytes: int) -> Answer:
    if answer.file is not None:
        shown_bytes = min(size_bytes, answer.file.size_bytes)
        return replace(answer, file=replace(answer.file, size_bytes=shown_bytes))
    return replace(answer, linked_size_bytes=size_bytes)
