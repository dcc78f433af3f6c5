"""How a profile extends another, how an instance overrides one, and where each value comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from corral.catalog.layers import Found, read_toml
from corral.catalog.profile import Profile
from corral.errors import CorralError
from corral.schema import Frozen, did_you_mean, parse

# More would hide where a value comes from.
MOST_EXTENDED = 8

Sources = Mapping[str, str]
"""Key of a profile, with dots inside of tables -> the file and key that its value comes from."""


class Inheritance(Frozen):
    """Keys of a profile's file beside those of the profile."""

    extends: str | None = Field(
        default=None,
        description="another profile, whose keys count where this file does not set them; tables "
        "are merged, lists are replaced",
    )
    unset: tuple[str, ...] = Field(
        default=(),
        description='keys of the extended profile without effect here, such as "golden" or '
        '"sampling.top_p"',
    )


class SourcedProfile(Frozen):
    """A profile, and where its values come from."""

    profile: Profile
    sources: dict[str, str]


_Key = tuple[str, int]
"""Name of a profile, and which of the files of this name, the strongest first."""


class _Merged(Frozen):
    values: dict[str, Any]
    sources: dict[str, str]


def read_profiles(
    files: Mapping[str, Sequence[Found]], broken: dict[str, CorralError] | None
) -> dict[str, SourcedProfile]:
    """All profiles by name; mistakes are collected in ``broken``, or raised where it is None.

    + files: name -> the files of this name, the strongest first; one of them extends the next of
      its own name
    """
    reader = _Reader(files)
    profiles = {}
    for name in files:
        try:
            profiles[name] = reader.profile(name)
        except CorralError as error:
            if broken is None:
                raise
            broken[name] = error
    return profiles


class _Reader:
    """Profiles, each read after the one that it extends."""

    def __init__(self, files: Mapping[str, Sequence[Found]]) -> None:
        self._files = files
        self._read: dict[str, SourcedProfile] = {}

    def profile(self, name: str) -> SourcedProfile:
        return self._profile(self._files[name][0], (name, 0), ())

    def _profile(self, file: Found, key: _Key, above: tuple[_Key, ...]) -> SourcedProfile:
        """A profile by its file; ``above``: those that extend it, the first one first."""
        if file.where in self._read:
            return self._read[file.where]
        data = read_toml(file)
        own = {k: v for k, v in data.items() if k not in Inheritance.model_fields}
        inherits = {k: v for k, v in data.items() if k in Inheritance.model_fields}
        how = parse(Inheritance, inherits, where=file.where, next_step=file.next_step)
        base = self._extended(file, how, key, above)
        merged = _merge(_without(base, how, file), own, file.where)
        found = _checked(merged, where=file.where, next_step=file.next_step)
        self._read[file.where] = found
        return found

    def _extended(
        self,
        file: Found,
        how: Inheritance,
        key: _Key,
        above: tuple[_Key, ...],
    ) -> _Merged:
        """The keys of the extended profile; none without one. Raises CorralError."""
        if how.extends is None:
            return _Merged(values={}, sources={})
        name, line = how.extends, (*above, key)
        index = key[1] + 1 if name == key[0] else 0
        if name not in self._files:
            what = f'extends: unknown profile "{name}"{did_you_mean(name, self._files)}'
            raise CorralError(file.where, what, file.next_step)
        if (name, index) in line or index >= len(self._files[name]):
            names = " -> ".join((*(one for one, _ in line), name))
            what = f"extends: a profile would extend itself: {names}"
            raise CorralError(file.where, what, file.next_step)
        if len(line) > MOST_EXTENDED:
            names = " -> ".join((*(one for one, _ in line), name))
            what = f"extends: more than {MOST_EXTENDED} profiles, one above the other: {names}"
            raise CorralError(file.where, what, "extend one of the last in this line instead")
        found = self._profile(self._files[name][index], (name, index), line)
        values = found.profile.model_dump(exclude_unset=True)
        return _Merged(values=values, sources=dict(found.sources))


def with_overrides(
    base: SourcedProfile, overrides: Mapping[str, Any], *, where: str, next_step: str
) -> SourcedProfile:
    """A profile with some of its keys changed; None puts a key back to its default.

    + where: names the overrides. Raises CorralError.
    """
    if not overrides:
        return base
    start = _Merged(values=base.profile.model_dump(exclude_unset=True), sources=dict(base.sources))
    return _checked(_merge(start, overrides, where), where=where, next_step=next_step)


def with_sources(error: CorralError, found: SourcedProfile) -> CorralError:
    """The error, with the value and source of each key of the profile that it names."""
    text = f"{error.what}\n{error.next_step}"
    said = list(dict.fromkeys(_sentences(text, found.sources, found.profile, error.where)))
    if not said or type(error) is not CorralError:
        return error
    return CorralError(error.where, f"{error.what} ({'; '.join(said)})", error.next_step)


def _checked(merged: _Merged, *, where: str, next_step: str) -> SourcedProfile:
    try:
        profile = parse(Profile, merged.values, where=where, next_step=next_step)
    except CorralError as error:
        text, values = f"{error.what}\n", merged.values
        said = list(dict.fromkeys(_sentences(text, merged.sources, values, where)))
        if not said:
            raise
        what = f"{error.what} ({'; '.join(said)})"
        raise CorralError(error.where, what, error.next_step) from error
    return SourcedProfile(profile=profile, sources=merged.sources)


def _merge(base: _Merged, own: Mapping[str, Any], where: str) -> _Merged:
    """The keys of ``own`` over those of ``base``."""
    values = _merged_tables(base.values, own)
    sources = {key: source for key, source in base.sources.items() if _has(values, key)}
    for key in _paths(own):
        if _has(values, key):
            # A table that replaces a value, or the other way round.
            sources = {k: s for k, s in sources.items() if not _is_inside(k, key)}
            sources[key] = where
    return _Merged(values=values, sources=sources)


def _merged_tables(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged_tables(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _without(base: _Merged, how: Inheritance, file: Found) -> _Merged:
    """``base`` without the keys that the file unsets. Raises CorralError for one not in it."""
    nothing: dict[str, Any] = {}
    for key in how.unset:
        if how.extends is None or not _has(base.values, key):
            hint = did_you_mean(key, base.sources)
            what = f'unset: the extended profile does not set "{key}"{hint}'
            raise CorralError(file.where, what, file.next_step)
        inner: Any = None
        for part in reversed(key.split(".")):
            inner = {part: inner}
        nothing = _united(nothing, inner)
    return _merge(base, nothing, file.where)


def _united(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both tables of keys to unset; None for a whole table wins."""
    united = dict(one)
    for key, value in other.items():
        both = united.get(key, {})
        if key in united and (both is None or value is None):
            united[key] = None
        else:
            united[key] = value if value is None else _united(both, value)
    return united


def _paths(table: Mapping[Any, Any], above: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _has(values: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _is_inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _sentences(
    text: str, sources: Sources, values: Profile | Mapping[str, Any], where: str
) -> Iterable[str]:
    """Value and source of each key in a message, without those of the file that it names."""
    for key, source in sources.items():
        if source not in where and _names(text, key):
            yield f"{key} = {_value(values, key)} comes from {source}"


def _names(text: str, key: str) -> bool:
    """Whether a message is about a key. Some keys are common words: these need a mark of a key."""
    first = key.partition(".")[0]
    for name in dict.fromkeys((key, first)):
        if "_" in name or "." in name:
            if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text):
                return True
        elif re.search(rf'(?<![\w.])({name}( =|:)|"{name}"|`{name}`|\[{name}\])', text):
            return True
    return False


def _value(values: Profile | Mapping[str, Any], key: str) -> str:
    found: Any = values.model_dump() if isinstance(values, Profile) else values
    for part in key.split("."):
        found = found[part]
    shown = json.dumps(found, default=str)
    return shown if len(shown) <= 60 else f"{shown[:60]} ..."
