"""The flags of an engine's programs, one row each: all that Corral knows of a flag is said once.

From the rows follow command lines, flags that no profile may give as extra_flags, environment
variables that say the same, and keys of a profile that an engine does not have.
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
    """What an engine cannot do for a profile, and what to change."""

    what: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line of a program is made from.

    + model: the file that it is given to load; + key_file: where the unit's credential is
    """

    profile: Profile
    placement: ResolvedPlacement
    model: str = ""
    alias: str = ""
    endpoint: Endpoint = Endpoint()
    key_file: str = ""
    chat_template_file: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether anything is placed on a GPU."""
        return self.placement.gpu_layers != 0


Value = str | int | float | None
Given = Callable[[Settings], Value]


def _never(_: Settings) -> Value:
    return None


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    + name: the spelling that Corral writes; + keys: of the profile, that decide it
    + value: of the flag, True for a switch that is on, None or False where it is left out
    + variable: of the environment, that says the same; + says: its value where the flag is a switch
    + also: other spellings, and flags that undo it; + owner: who decides it where no key does
    + part: of the command line, as other programs of the release take some parts and not others
    """

    name: str
    keys: tuple[str, ...] = ()
    value: Given = _never
    variable: str | None = None
    says: str | None = None
    also: tuple[str, ...] = ()
    owner: str = ""
    part: str = ""

    def words(self, settings: Settings) -> list[str]:
        """The flag with its value, or nothing."""
        value = self.value(settings)
        if value is None or value is False:
            return []
        return [self.name] if value is True else [self.name, str(value)]

    @property
    def decided_by(self) -> str:
        """Whose business it is, for people."""
        if self.owner or not self.keys:
            return self.owner
        return f"the key{'s' if len(self.keys) > 1 else ''} {' and '.join(self.keys)}"


@dataclass(frozen=True, slots=True)
class EngineVariables:
    """Environment variables of one engine's server.

    + valued: flag -> variable that takes the flag's value; + switches: flag -> variable and value
    """

    valued: Mapping[str, str]
    switches: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class FlagTable:
    """All rows of an engine, in the order of its server's command line.

    + refused: flag or variable -> why no profile may give it; completes "is refused: it ..."
    + ordered: of these the first that names a tensor counts; variables have an order of their own
    """

    rows: tuple[Flag, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()

    def words(self, settings: Settings, *parts: str) -> list[str]:
        """The server's words, or those of some parts in that order."""
        rows = self.rows if not parts else [r for part in parts for r in self._of(part)]
        return [word for row in rows for word in row.words(settings)]

    def _of(self, part: str) -> Iterator[Flag]:
        return (row for row in self.rows if row.part == part)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Every spelling that belongs to somebody -> whose business it is."""
        return {name: row.decided_by for row in self.rows for name in (row.name, *row.also)}

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of a profile that decide a flag."""
        return frozenset(key.partition(".")[0] for row in self.rows for key in row.keys)

    @cached_property
    def variables(self) -> EngineVariables:
        """Which flags an environment variable can stand for."""
        named = [(row.name, row.variable, row.says) for row in self.rows if row.variable]
        return EngineVariables(
            valued={name: variable for name, variable, says in named if says is None},
            switches={name: (variable, says) for name, variable, says in named if says},
        )

    def extra_flag_problems(self, words: tuple[str, ...]) -> list[Problem]:
        """Words of extra_flags that belong to something else, or that are refused."""
        problems = []
        if words and not _FLAG.match(words[0]):
            what = f'extra_flags starts with "{words[0]}", which is no flag'
            problems.append(Problem(what, "begin with a flag, one word each"))
        for flag in sorted(flags_of(words) & self.owners.keys()):
            what = f"extra_flags: {flag} belongs to {self.owners[flag]}"
            problems.append(Problem(what, f"remove {flag} from extra_flags"))
        for name in sorted(self._refused_in(words) - self.owners.keys()):
            what = f"extra_flags: {name} is refused: it {self.refused[name]}"
            problems.append(Problem(what, f"remove {name} from extra_flags"))
        return problems

    def _refused_in(self, words: tuple[str, ...]) -> set[str]:
        """Flags, and assignments to variables of the servers."""
        names = flags_of(words) | {word.partition("=")[0] for word in words}
        return names & self.refused.keys()


def flags_of(argv: Iterable[str]) -> set[str]:
    """The flags of a command line, as the servers read them: ``--a_b=c`` is ``--a-b``."""
    return {_spelling(word) for word in argv if _FLAG.match(word)}


def _spelling(word: str) -> str:
    """The servers take underscores for dashes in a long flag."""
    flag = word.partition("=")[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag
