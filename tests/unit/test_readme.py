"""The README's examples can be typed: their commands, options, hosts and instances exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from corral.cli import cli
from corral.inventory.hosts import read_inventory
from tests.samples import ROOT

README = (ROOT / "README.md").read_text()


def examples() -> list[str]:
    """Each `corral` command of a block that is typed, without its comment."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    blocks = [text for language, text in fenced if not language]
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    commands = [one.strip() for line in lines for one in line.split("&&")]
    return [one for one in commands if one.startswith("corral ")]


def parse(words: list[str]) -> None:
    """Parse as the command line does, and run nothing. Raises click.UsageError."""
    command: click.Command = cli
    context: click.Context | None = None
    name = "corral"
    while True:
        context = command.make_context(name, words, parent=context)
        if not isinstance(command, click.Group):
            return
        found, inner, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        assert inner is not None
        name, command = found, inner


def test_there_are_examples_for_each_job() -> None:
    used = {one.split()[1] for one in examples()}
    assert used >= {"lock", "plan", "verify", "rollout", "history", "show", "revert", "fit"}


@pytest.mark.parametrize("example", examples())
def test_an_example_is_a_command(example: str) -> None:
    parse(shlex.split(example)[1:])


def test_a_command_that_is_none_is_seen() -> None:
    with pytest.raises(click.UsageError):
        parse(["verify", "--no-such-option"])


def test_hosts_and_instances_of_examples_are_in_the_labs_inventory() -> None:
    hosts = read_inventory(ROOT / "inventories" / "lab.py").hosts
    known = {host.name for host in hosts} | {
        f"{host.name}/{name}" for host in hosts for name in host.instance_names
    }
    named = set(re.findall(r"\blab-\d+(?:/[\w-]+)?", "\n".join(examples())))
    assert named
    assert named <= known
