"""`headrace`: the command line. Mistakes of the user exit with 2, failures with 1, both with what to do."""

import sys
from importlib import import_module

import click

from headrace import __version__
from headrace.engine.errors import ConfigError, HeadraceError

#: Imported when it is run: a command pays only for what it needs.
COMMANDS = {"bench": "headrace.cli.bench", "demo": "headrace.cli.demo", "replay": "headrace.cli.replay"}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headrace")
def cli() -> None:
    """Stream processing for IoT telemetry: ingest, roll up, detect, alert, store."""


def main() -> None:
    """Entry point of the `headrace` command."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(f"error: {mistake}", err=True)
        sys.exit(2)
    except HeadraceError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
