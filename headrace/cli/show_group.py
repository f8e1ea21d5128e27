"""A group of commands of which one is run where none is named."""

from typing import Any

import click


class ShowGroup(click.Group):
    """Without a command's name it is `show`: `headrace topics`, `headrace topics telemetry.raw`.

    Args:
        default: another command than `show`.
    """

    def __init__(self, *args: Any, default: str = "show", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if args and args[0] in known else [self._default, *args])
