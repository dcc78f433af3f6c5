"""The controller's own package sources and settings, as a lab host needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corral.errors import CorralError
from lab.commands import run

RELEASE = "bookworm"

_APT = Path("/etc/apt")
_SUITES = frozenset({RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"})
# Settings of the controller that say which indexes to fetch, not how to reach a mirror.
_NOT_ACCESS = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes")


@dataclass(frozen=True)
class Sources:
    """Package sources: one-line entries and deb822 stanzas; one of them may be empty."""

    lines: str
    stanzas: str

    def mirror(self) -> str:
        """The first address in the sources."""
        fields = f"{self.stanzas}\n{self.lines}".split()
        return next(field for field in fields if "://" in field)

    def renamed(self, release: str) -> Sources:
        """The same for another release of the distribution."""
        found = (re.sub(rf"\b{RELEASE}\b", release, text) for text in (self.lines, self.stanzas))
        return Sources(*found)

    def only_release(self) -> Sources:
        """Without updates and security, which not every release has."""
        kept = [line for line in self.lines.splitlines() if re.search(rf"\s{RELEASE}\s", line)]
        beside = re.compile(rf"\s+{RELEASE}-\S+")
        stanzas = [beside.sub("", one) for one in _stanzas(self.stanzas)]
        named = [
            f"{one}\n"
            for one in stanzas
            if re.search(rf"^Suites:.*\b{RELEASE}\b", one, re.M | re.I)
        ]
        return Sources("".join(f"{line}\n" for line in kept), "\n".join(named))

    def plus(self, other: Sources) -> Sources:
        """Both."""
        stanzas = "\n".join(filter(None, (self.stanzas, other.stanzas)))
        return Sources(self.lines + other.lines, stanzas)


def debian_sources(apt: Path = _APT) -> Sources:
    """The Debian entries for `RELEASE` among the machine's sources.

    Raises CorralError if there are none: only the machine's owner can choose a mirror.
    """
    parts = apt / "sources.list.d"
    lines = [
        line
        for file in [apt / "sources.list", *sorted(parts.glob("*.list"))]
        if file.is_file()
        for line in file.read_text().splitlines()
        if _line_wanted(line)
    ]
    stanzas = [
        stanza
        for file in sorted(parts.glob("*.sources"))
        for stanza in _stanzas(file.read_text())
        if _stanza_wanted(stanza)
    ]
    if not lines and not stanzas:
        what = f"no Debian entry for {RELEASE} among the package sources"
        step = f"add one in {parts}, or use a Debian 12 machine"
        raise CorralError(str(apt), what, step)
    return Sources(
        lines="".join(f"{line}\n" for line in lines),
        stanzas="\n".join(f"{stanza}\n" for stanza in stanzas),
    )


def access_settings() -> str:
    """apt.conf text with the machine's settings for reaching its mirrors (proxy, checks, TLS)."""
    dump = run(["apt-config", "dump", "--no-empty"], where="apt's settings")
    wanted = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::") and not line.startswith(_NOT_ACCESS)
    ]
    return "".join(f"{line}\n" for line in [*wanted, 'APT::Install-Recommends "false";'])


def _line_wanted(line: str) -> bool:
    options, _, after = line.partition("#")[0].partition("]")
    kind = line.split()[:1] == ["deb"]
    rest = (after or options.removeprefix("deb")).split()
    return kind and len(rest) > 2 and rest[1] in _SUITES and "main" in rest[2:]


def _stanzas(text: str) -> list[str]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [part.strip("\n") for part in kept.split("\n\n") if part.strip()]


def _stanza_wanted(stanza: str) -> bool:
    fields = {
        name.strip().lower(): value.split()
        for name, _, value in (line.partition(":") for line in stanza.splitlines())
    }
    return (
        "deb" in fields.get("types", [])
        and bool(_SUITES.intersection(fields.get("suites", [])))
        and "main" in fields.get("components", [])
        and fields.get("enabled", ["yes"]) == ["yes"]
    )
