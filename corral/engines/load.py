"""One measurement of a load test, and an engine's own program for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from corral.schema import Frozen

# Spelled as in the results of `vllm bench serve`: all requests are sent at once.
AT_ONCE: Literal["inf"] = "inf"


class LoadCase(Frozen):
    """The load of one measurement.

    + input_tokens, output_tokens: exact lengths of each prompt and each answer
    + request_rate: requests/s that arrive on average, or "inf": all at once
    + max_concurrency: most requests in flight; None: no limit
    """

    input_tokens: int = Field(gt=0)
    output_tokens: int = Field(gt=0)
    num_prompts: int = Field(gt=0)
    request_rate: float | Literal["inf"] = AT_ONCE
    max_concurrency: int | None = Field(default=None, gt=0)

    @property
    def concurrency(self) -> int:
        """Most requests that can be in flight."""
        return min(self.num_prompts, self.max_concurrency or self.num_prompts)


class LoadCommand(NamedTuple):
    """A load generator of an engine's release, which is a module of its Python environment.

    + python: the interpreter; + module: run as its main program, with ``arguments``
    + key_variable: environment variable that it reads the API key from
    + result_file: JSON with the fields of `vllm bench serve`, written to its working folder
    """

    python: str
    module: str
    arguments: tuple[str, ...]
    key_variable: str
    result_file: str

    @property
    def shown(self) -> tuple[str, ...]:
        """The command line for people and results."""
        return (self.python, "-m", self.module, *self.arguments)
