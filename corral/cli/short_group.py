"""Groups of commands one of which may be left out, such as `corral bench NAME`."""

from __future__ import annotations

from typing import Any

import click


class ShortGroup(click.Group):
    """A group that runs the command ``meant`` where its first argument is none of its commands."""

    def __init__(self, *arguments: Any, meant: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.meant = meant

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [self.meant, *args]
        return super().parse_args(ctx, args)
