"""The echo server, as the host helper knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from corral_host.engines.base import Engine
from corral_host.system.commands import HostError
from corral_shared.requirements import pins

MODULE = ("-I", "-m", "echo_engine")


class Echo(Engine):
    """One server, one module."""

    kind = "echo"
    program = "bin/python"
    variables = ("ECHO_", "PYTHON")

    def prove_version(
        self, program: Path, release: dict[str, Any], run: Callable[..., Any]
    ) -> None:
        """The locked version is that of the program."""
        said, code = run([*MODULE, "--version"])
        planned = pins(release["artifact"]["requirements"])["echo-engine"]
        if code != 0 or said.split() != ["echo_engine", planned]:
            raise HostError(f"{program} is not echo_engine {planned}: {said}")

    def flags(self, program: Path, run: Callable[..., Any]) -> list[str]:  # noqa: ARG002
        """Those of --help, and those of the interpreter before it."""
        said, _ = run([*MODULE, "--help"])
        listed = {word.strip("[],") for word in said.split() if word.startswith(("[--", "--"))}
        return sorted({*listed, "-I", "-m"})

    def smoke_arguments(
        self,
        program: Path,
        model: Path,
        key_file: Path,
        endpoint: dict[str, Any],
        gpu: bool,  # noqa: ARG002
    ) -> list[str]:
        """The fewest that it starts with."""
        words = ["--weights", model, "--name", "smoke", "--keys", key_file]
        words += ["--listen", endpoint["address"], "--port", endpoint["port"]]
        return [str(program), *MODULE, *map(str, words)]

    def in_flight(self, instance: dict[str, Any], get: Callable[[str], str]) -> int:  # noqa: ARG002
        """Its own count."""
        lines = [line.split() for line in get("/metrics").splitlines()]
        return int(dict(lines)["echo_in_flight"])
