"""`headrace`: the command line. Mistakes of the user exit with 2, failures with 1, both with what to do."""

import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

import click

from headrace import __version__

#: Imported when it is run: a command pays only for what it needs.
COMMANDS = {
    "alerts": "headrace.cli.alerts",
    "archive": "headrace.cli.archive",
    "bench": "headrace.cli.bench",
    "bridge": "headrace.cli.bridge",
    "cache": "headrace.cli.cache",
    "contracts": "headrace.cli.contracts",
    "database": "headrace.cli.database",
    "demo": "headrace.cli.demo",
    "devices": "headrace.cli.devices",
    "dlq": "headrace.cli.dlq",
    "explain": "headrace.cli.explain",
    "new": "headrace.cli.new",
    "notifications": "headrace.cli.notifications",
    "notify": "headrace.cli.notify",
    "passwd": "headrace.cli.passwd",
    "query": "headrace.cli.query",
    "replay": "headrace.cli.replay",
    "retention": "headrace.cli.retention",
    "rules": "headrace.cli.rules",
    "sink": "headrace.cli.sink",
    "sparkplug": "headrace.cli.sparkplug",
    "tables": "headrace.cli.tables",
    "topics": "headrace.cli.topics",
    "types": "headrace.cli.types",
    "users": "headrace.cli.users",
    "why": "headrace.cli.why",
    "worker": "headrace.cli.worker",
}


#: Whether a command is being imported.
_importing = False


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        global _importing  # noqa: PLW0603
        if cmd_name not in COMMANDS:
            return None
        _importing = True
        try:
            command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        finally:
            _importing = False
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headrace")
def cli() -> None:
    """Stream processing for IoT telemetry: ingest, roll up, detect, alert, store."""


def main() -> None:
    """Entry point of the `headrace` command."""
    # Until a command watches for signals itself there is nothing to finish: imports alone take a second.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop_before_start)
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Exception as error:
        sys.exit(_explain(error))


def _stop_before_start(number: int, frame: object) -> NoReturn:
    if _importing:
        # Not an exception: a module that is being imported may take it for one of its own, fail of it, or pass it over.
        os._exit(0)
    sys.exit(0)


def _explain(error: Exception) -> int:
    """Say what is wrong and what to do; the exit code. An error that is not ours is a bug and keeps its traceback."""
    # Here and not above: importing the engine takes a second, in which a signal must find its handler.
    from headrace.engine.errors import ConfigError, HeadraceError  # noqa: PLC0415

    if isinstance(error, ConfigError):
        for mistake in error.mistakes:
            click.echo(f"error: {mistake}", err=True)
        return 2
    if isinstance(error, HeadraceError):
        click.echo(f"error: {error}", err=True)
        return 1
    raise error


if __name__ == "__main__":
    main()
