"""`headrace`: the command line. Mistakes of the user exit with 2, failures with 1, both with what to do."""

import sys

import click

from headrace import __version__
from headrace.cli.bench import bench
from headrace.cli.demo import demo
from headrace.cli.replay import replay
from headrace.engine.errors import ConfigError, HeadraceError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headrace")
def cli() -> None:
    """Stream processing for IoT telemetry: ingest, roll up, detect, alert, store."""


cli.add_command(demo)
cli.add_command(replay)
cli.add_command(bench)


def main() -> None:
    """Entry point of the `headrace` command."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
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
