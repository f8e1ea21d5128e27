"""A group of commands of which one is `show`."""

import click


class ShowGroup(click.Group):
    """Without a command's name it is `show`: `headrace topics`, `headrace topics telemetry.raw`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if args and args[0] in known else ["show", *args])
