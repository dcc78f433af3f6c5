"""Gate settings of a profile: golden prompts, tokens/s, perplexity."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from corral.schema import Frozen


class GoldenPrompt(Frozen):
    """A request at temperature 0 with a known reply; without ``exact``, it must make sense too.

    + exact: the whole reply; + require, forbid: regular expressions, searched in the reply and in
    the reasoning before it
    """

    prompt: str = Field(min_length=1, description="user message, sent at temperature 0")
    image: str | None = Field(
        default=None,
        max_length=2**16,
        pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*$",
        description="image beside the prompt, as a data URL",
    )
    max_tokens: int = Field(gt=0, description="token limit, with room for reasoning")
    exact: str | None = Field(default=None, description="whole reply")
    require: tuple[str, ...] = Field(
        default=(), description="regular expressions that reply or reasoning must match"
    )
    forbid: tuple[str, ...] = Field(
        default=(), description="regular expressions that neither may match"
    )

    @field_validator("require", "forbid")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f'"{pattern}" is not a regular expression: {error}') from error
        return patterns


class Speed(Frozen):
    """Tokens/s of a new generation, compared with the host's baseline for the profile."""

    off: bool = Field(default=False, description="do not measure")
    epsilon: float = Field(default=0.1, ge=0, lt=1, description="allowed loss, as a fraction")
    runs: int = Field(default=3, ge=2, description="measurements at each length")
    max_runs: int = Field(
        default=10, description="most measurements, while their spread allows no verdict"
    )
    prompt_tokens: tuple[int, ...] = Field(
        default=(),
        description="prompt lengths to measure; short and a quarter of the context if unset",
    )
    generated_tokens: int = Field(default=64, ge=2, description="tokens of each measured reply")

    @model_validator(mode="after")
    def _consistent(self) -> Speed:
        if self.max_runs < self.runs:
            raise ValueError("max_runs is less than runs")
        if any(tokens < 1 for tokens in self.prompt_tokens):
            raise ValueError("prompt_tokens must be 1 or more")
        return self


class Perplexity(Frozen):
    """Perplexity on a text, measured by a program of the engine before the server starts."""

    text: str = Field(pattern=r"^[\w.-]+$", description="a file of catalog/references/")
    limit: float = Field(gt=1, description="highest perplexity that passes")
