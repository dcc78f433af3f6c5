"""The flags of an engine's programs, one row each, the only source about each flag.

From the rows follow command lines, flags that are refused in extra_flags, equivalent environment
variables, and keys of a profile without effect in an engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from corral.catalog.profile import Profile
from corral.plan.instance import Endpoint
from corral.plan.placement import ResolvedPlacement

# A flag starts with a dash and a letter; -1 is a value.
_FLAG = re.compile(r"--?[a-zA-Z]")


class Problem(NamedTuple):
    """A setting that an engine cannot serve, and what to change."""

    what: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The inputs of a program's command line.

    + model: the path that it loads
    + key_file: path of the unit's credential, or of the file that ``key_config`` makes from it
    + projector: path of the projector, "" for a server without images
    + draft, lora: paths of a draft model, "" for none, and of LoRA adapters
    + gpus: number of GPUs that a server's unit sees, for servers alone
    """

    profile: Profile
    placement: ResolvedPlacement
    model: str = ""
    alias: str = ""
    endpoint: Endpoint = Endpoint()
    key_file: str = ""
    projector: str = ""
    draft: str = ""
    lora: tuple[str, ...] = ()
    gpus: int = 0
    chat_template_file: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether anything is placed on a GPU."""
        return self.placement.gpu_layers != 0


Value = str | int | float | None
ValueOf = Callable[[Settings], Value]


def _never(_: Settings) -> Value:
    return None


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    + name: the spelling that Corral writes; + keys: keys of the profile that decide it
    + value: value of the flag; True for a switch that is on, None or False to omit the flag
    + variable: equivalent environment variable
    + variable_value: value of that variable where the flag is a switch
    + also: other spellings, and flags that undo it; + owner: what decides it where no key does
    + part: part of the command line, as other programs of the release take some parts only
    """

    name: str
    keys: tuple[str, ...] = ()
    value: ValueOf = _never
    variable: str | None = None
    variable_value: str | None = None
    also: tuple[str, ...] = ()
    owner: str = ""
    part: str = ""

    def arguments(self, settings: Settings) -> list[str]:
        """The flag with its value, or no arguments."""
        value = self.value(settings)
        if value is None or value is False:
            return []
        return [self.name] if value is True else [self.name, str(value)]

    @property
    def decided_by(self) -> str:
        """What decides the flag, for messages."""
        if self.owner or not self.keys:
            return self.owner
        return f"the key{'s' if len(self.keys) > 1 else ''} {' and '.join(self.keys)}"


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable for what an engine has no flag for.

    + name: as the engine reads it; + keys: keys of the profile that decide it
    + value: its value, or None to leave it unset
    """

    name: str
    keys: tuple[str, ...]
    value: Callable[[Profile], str | None]


@dataclass(frozen=True, slots=True)
class EngineVariables:
    """Environment variables of one engine's server.

    + valued: flag -> variable with the flag's value; + switches: flag -> variable and value
    """

    valued: Mapping[str, str]
    switches: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class FlagTable:
    """All rows of an engine, in the order of its server's command line.

    + refused: flag or variable -> why no profile may set it; completes "is refused: it ..."
    + ordered: flags of which the first that matches a tensor wins; variables have another order
    + own_variables: variables of the unit for keys without a flag
    + abbreviates: the server takes the beginning of a flag for the flag, and ``--flag.key value``
    + whole: flags of such a server that are the beginning of a reserved one
    """

    rows: tuple[Flag, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()
    own_variables: tuple[Variable, ...] = ()
    abbreviates: bool = False
    whole: frozenset[str] = frozenset()

    def arguments(self, settings: Settings, *parts: str) -> list[str]:
        """The server's arguments, or those of some parts in the given order."""
        rows = self.rows if not parts else [r for part in parts for r in self._of(part)]
        return [argument for row in rows for argument in row.arguments(settings)]

    def _of(self, part: str) -> Iterator[Flag]:
        return (row for row in self.rows if row.part == part)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Reserved flags, in every spelling -> what decides them."""
        return {name: row.decided_by for row in self.rows for name in (row.name, *row.also)}

    @cached_property
    def keys(self) -> frozenset[str]:
        """All keys of a profile that decide a flag or a variable."""
        keys = [*(row.keys for row in self.rows), *(row.keys for row in self.own_variables)]
        return frozenset(key.partition(".")[0] for decides in keys for key in decides)

    def environment(self, profile: Profile) -> dict[str, str]:
        """The unit's variables that keys of a profile decide."""
        values = {row.name: row.value(profile) for row in self.own_variables}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def variables(self) -> EngineVariables:
        """The environment variables that are equivalent to flags."""
        named = [(row.name, row.variable, row.variable_value) for row in self.rows if row.variable]
        return EngineVariables(
            valued={name: variable for name, variable, value in named if value is None},
            switches={name: (variable, value) for name, variable, value in named if value},
        )

    def extra_flag_problems(self, arguments: tuple[str, ...]) -> list[Problem]:
        """Arguments of extra_flags that are reserved or refused."""
        problems = []
        if arguments and not _FLAG.match(arguments[0]):
            what = f'extra_flags starts with "{arguments[0]}", which is not a flag'
            problems.append(Problem(what, "begin with a flag, one argument each"))
        named = self._named(arguments)
        for given, flag in sorted(named.items()):
            if flag in self.owners:
                what = f"extra_flags: {_shown(given, flag)} belongs to {self.owners[flag]}"
                problems.append(Problem(what, f"remove {given} from extra_flags"))
        names = {**{name: name for name in _assigned(arguments)}, **named}
        for given, name in sorted(names.items()):
            if name in self.refused and name not in self.owners:
                what = f"extra_flags: {_shown(given, name)} is refused: it {self.refused[name]}"
                problems.append(Problem(what, f"remove {given} from extra_flags"))
        return problems

    def _named(self, arguments: tuple[str, ...]) -> dict[str, str]:
        """Flag as given -> the flag that the server takes it for."""
        given = flags_of(arguments)
        return {flag: self._meant(flag) if self.abbreviates else flag for flag in given}

    def _meant(self, given: str) -> str:
        """A flag of this table by its beginning, or a short one by its first letter."""
        flag = given.partition(".")[0]
        if flag in self._names or flag in self.whole:
            return flag
        short = flag[:2] if flag[1] != "-" and flag[:2] in self._names else None
        return short or next((name for name in self._names if name.startswith(flag)), flag)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Every reserved or refused flag."""
        refused = (name for name in self.refused if name.startswith("-"))
        return tuple(dict.fromkeys([*self.owners, *refused]))


def _assigned(arguments: tuple[str, ...]) -> set[str]:
    """Names of assignments to environment variables."""
    return {argument.partition("=")[0] for argument in arguments}


def _shown(given: str, name: str) -> str:
    return given if given == name else f"{given} ({name})"


def flags_of(argv: Iterable[str]) -> set[str]:
    """The flags of a command line, as the servers read them: ``--a_b=c`` is ``--a-b``."""
    return {_spelling(argument) for argument in argv if _FLAG.match(argument)}


def _spelling(argument: str) -> str:
    """The flag without its value; in long flags the servers read underscores as dashes."""
    flag = argument.partition("=")[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag
