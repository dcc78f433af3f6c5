"""Every command that a message says to type is one: collected from the source, and parsed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from corral.cli import cli
from corral.cli.short_group import ShortGroup
from tests.samples import ROOT

pytestmark = pytest.mark.slow

FOLDERS = ("corral", "deploys", "operations", "facts", "files/corral_host", "files/corral_shared")
_COMMAND = re.compile(r"`([^`]+)`")
# Outside of backticks: the next step ends with it.
_BARE = re.compile(r"(?:[:;,] |run |\bor )(corral [a-z]+(?: [^`;,]*)?)$")
# What stands in a message where the source has an expression, by the expression.
MEANT = {
    "FOLDER": "corral.lock.d",
    "option": " --load",
    "_gateway(subject)": "--gateway gw/small",
    "_gateway(subjects[0])": "--gateway gw/small",
    "_client(subject, client)": "--gateway gw/small --client alice",
    "_target(subjects[0], client)": "--gateway gw/small --client alice",
    "f'-p {port} ' if port else ''": "-p 22 ",
    "rollout": "r1",
}
# Programs that an operator has, besides Corral's own.
PROGRAMS = {
    "add-apt-repository", "modprobe", "sha256sum", "sudo",
    "apptainer", "apt", "apt-get", "chmod", "chown", "df", "dpkg", "echo", "git", "hf", "install",
    "journalctl", "kill", "ls", "make", "mount", "numactl", "nvidia-smi", "ps", "pyinfra", "rm",
    "singularity", "sops", "ss", "ssh", "ssh-keygen", "ssh-keyscan", "sysctl", "systemctl",
}  # fmt: skip
# Names of things in backticks: keys, values, modules, flags, headers.
_NO_COMMAND = re.compile(r"[^ ]*|--.*|[\w.]+ = .*| or ")
# What stands for an expression of the source.
FILLER = "lab-1/tiny-chat"


@dataclass(frozen=True)
class Said:
    """A command in a message of the source."""

    where: str
    text: str


def _docstrings(tree: ast.AST) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node.body[0] for node in ast.walk(tree) if isinstance(node, holders) and node.body]
    return {id(node.value) for node in nodes if isinstance(node, ast.Expr)}


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a module, docstrings aside; expressions by what is meant."""
    passed = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in node.values}
            yield node.lineno, "".join(map(_part, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = "" if id(node) in passed else node.value
            yield node.lineno, text


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    source = ast.unparse(part.value)
    return MEANT.get(source, FILLER)


def commands() -> list[Said]:
    """All commands of messages, each once."""
    found: dict[str, Said] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in _texts(ast.parse(path.read_text())):
                where = f"{path.relative_to(ROOT)}:{line}"
                bare = _BARE.search(text)
                for one in (*_COMMAND.findall(text), *([bare[1]] if bare else ())):
                    if "\n" not in one:
                        found.setdefault(one, Said(where, one))
    return list(found.values())


ALL = commands()
CORRAL = [said for said in ALL if said.text.startswith("corral ")]
OTHERS = [said for said in ALL if not said.text.startswith("corral ")]


def parse(text: str) -> None:
    """Parse a command line of `corral`; nothing runs. Raises click.UsageError."""
    # What stands in brackets may be left out, and may be there.
    for line in (re.sub(r" ?\[[^]]*\]", "", text), text.replace("[", "").replace("]", "")):
        words = shlex.split(line.partition(" | ")[0])[1:]
        command: click.Command = cli
        context = click.Context(cli, info_name="corral")
        while isinstance(command, click.Group) and words:
            if isinstance(command, ShortGroup) and words[0] not in command.commands:
                words = [command.meant, *words]
            name, found, words = command.resolve_command(context, words)
            assert found, line
            command, context = found, click.Context(found, info_name=name, parent=context)
        if words:
            command.make_context(text, list(words), parent=context.parent)


@pytest.mark.parametrize("said", CORRAL, ids=lambda said: said.text)
def test_a_command_of_corral_is_one(said: Said) -> None:
    try:
        parse(said.text)
    except click.UsageError as error:
        pytest.fail(f"{said.where}: `{said.text}`: {error.format_message()}")


@pytest.mark.parametrize("said", OTHERS, ids=lambda said: said.text)
def test_another_command_is_of_a_program_that_operators_have(said: Said) -> None:
    if not _NO_COMMAND.fullmatch(said.text) and not said.text.startswith(FILLER):
        assert shlex.split(said.text)[0] in PROGRAMS, said


def test_the_test_sees_what_it_looks_for() -> None:
    assert len(CORRAL) > 45
    with pytest.raises(click.UsageError):
        parse("corral verify --all")
    with pytest.raises(click.UsageError):
        parse("corral keys rotat lab-1/tiny-chat")
    tree = ast.parse('raise E("x", "y", f"run `corral logs {name}` or `corral nothing`")')
    texts = [text for _, text in _texts(tree)]
    assert "run `corral logs lab-1/tiny-chat` or `corral nothing`" in texts
    assert Path(ALL[0].where.partition(":")[0]).suffix == ".py"
