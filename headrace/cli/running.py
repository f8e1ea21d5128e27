"""What every long-running command needs: signals, a data folder, configuration, and where to show things."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.config import load
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.schemas import topics

#: Data folders go here unless --data names one.
DEFAULT_FOLDER = Path(".headrace")

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder. Default: one per command in ./.headrace.",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; see docs/configuration.md.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")


def settings_for(config: Path | None, defaults: Mapping[str, Any] | None = None) -> Settings:
    """Load the configuration and set up logging by it."""
    settings = load(Settings, config, dict(defaults or {}))
    logging.configure(settings.log_level)
    return settings


def stop_on_signals() -> asyncio.Event:
    """An event that Ctrl-C, SIGTERM and SIGHUP set. The second ends the process at once, as safely as kill -9."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    return stop


def consoles(as_json: bool) -> tuple[Console, Console]:
    """Where the live view goes, and the result: with JSON on standard output the view is on standard error."""
    return (Console(stderr=True), Console()) if as_json else (Console(), Console())


async def newest_append_ms(log: EmbeddedLog) -> int:
    """Append time of the newest raw record, ms; 0 on an empty log."""
    newest = 0
    for target, end in (await log.end_offsets(topics.RAW)).items():
        fetched = await log.read(target, end - 1, 1) if end else None
        if fetched is not None:
            newest = max(newest, *fetched.records.timestamps)
    return newest


def positive(name: str, value: float | None) -> None:
    """Refuse 0 and less."""
    if value is not None and value <= 0:
        raise ConfigError(f"--{name} must be more than 0, not {value:g}")
