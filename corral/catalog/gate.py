"""What a profile says of the health gate: golden prompts, tokens/s, perplexity."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from corral.schema import Frozen


class GoldenPrompt(Frozen):
    """A request at temperature 0 whose reply is known; one without ``exact`` must make sense too.

    + exact: the whole reply; + require, forbid: regular expressions, searched in it and in the
    thoughts before it
    """

    prompt: str = Field(min_length=1, description="sent as a user's message, at temperature 0")
    max_tokens: int = Field(gt=0, description="enough to think, where the model does")
    exact: str | None = Field(default=None, description="the whole reply")
    require: tuple[str, ...] = Field(
        default=(), description="regular expressions that the reply or the thoughts before it match"
    )
    forbid: tuple[str, ...] = Field(
        default=(), description="regular expressions that neither matches"
    )

    @field_validator("require", "forbid")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f'"{pattern}" is no regular expression: {error}') from error
        return patterns


class Speed(Frozen):
    """Tokens/s of a new generation against the baseline that the host keeps for the profile."""

    off: bool = Field(default=False, description="measure nothing")
    epsilon: float = Field(default=0.1, ge=0, lt=1, description="the share that may be lost")
    runs: int = Field(default=3, ge=2, description="at each length")
    max_runs: int = Field(default=10, description="while the spread leaves the answer open")
    prompt_tokens: tuple[int, ...] = Field(
        default=(), description="lengths that matter; short and a quarter of the context if unset"
    )
    generated_tokens: int = Field(default=64, ge=2, description="for each measured reply")

    @model_validator(mode="after")
    def _consistent(self) -> Speed:
        if self.max_runs < self.runs:
            raise ValueError("max_runs is less than runs")
        if any(tokens < 1 for tokens in self.prompt_tokens):
            raise ValueError("prompt_tokens are one or more")
        return self


class Perplexity(Frozen):
    """Perplexity on a text, by a program of the engine, before the server starts."""

    text: str = Field(pattern=r"^[\w.-]+$", description="a file of catalog/references/")
    limit: float = Field(gt=1, description="the most that is kept")
