"""An instance as an environment file: variables, and words for what has no variable."""

from __future__ import annotations

from pathlib import Path

from corral.engines import engine_module
from corral.engines.flag_table import FlagTable
from corral.export.subject import Subject
from corral.export.templates import joined, quote, render


def env(subject: Subject, templates: Path) -> str:
    """A file for ``EnvironmentFile=`` and for ``set -a; . FILE``."""
    subject.refuse_image("an environment file")
    instance = subject.instance
    config = instance.credential_path
    argv = subject.argv(keys=config if instance.prepare else instance.key_path)
    prepare = subject.prepare(keys=instance.key_path, config=config)
    variables, words = split(argv[1:], engine_module(subject.kind).flags)
    variables = {**subject.environment, **variables}
    return render(
        "export-env.j2",
        templates,
        s=subject,
        program=argv[0],
        variables={name: quote(value) for name, value in variables.items()},
        words=quote(joined(words)),
        prepare=quote(joined(prepare[1:])) if prepare else None,
        variables_win=engine_module(subject.kind).variables_win,
    )


def split(words: list[str], table: FlagTable) -> tuple[dict[str, str], list[str]]:
    """Variables for the flags that have one, and the words of the others, in their order."""
    valued, switches = dict(table.variables.valued), dict(table.variables.switches)
    if len(table.ordered.intersection(words)) > 1:
        valued = {flag: name for flag, name in valued.items() if flag not in table.ordered}
        switches = {flag: pair for flag, pair in switches.items() if flag not in table.ordered}
    variables: dict[str, str] = {}
    others: list[str] = []
    left = iter(words)
    for word in left:
        if word in valued:
            variables[valued[word]] = next(left)
        elif word in switches:
            name, value = switches[word]
            variables[name] = value
        else:
            others.append(word)
    return variables, others
