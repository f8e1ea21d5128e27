"""What every long-running command needs: signals, a data folder, configuration, and where to show things."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import Console

from headrace.agents.event_time import LATEST_MS
from headrace.cli.own_agents import own_agents
from headrace.cli.settings import Settings
from headrace.connectors.topic_profile import check_device_type, check_device_types
from headrace.engine import logging
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.catch_all import CATCH_ALL
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import check_rules, load_rules

#: Data folders go here unless --data names one.
DEFAULT_FOLDER = Path(".headrace")

Made = TypeVar("Made")

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


def config_arguments(config: Path | None) -> list[str]:
    """`--config` for a process of our own."""
    return [] if config is None else ["--config", str(config)]


class Mistakes:
    """Collects the mistakes of everything a command needs, so that the user hears of all of them at once."""

    def __init__(self, found: Iterable[str] = ()) -> None:
        self._found = list(found)

    def take(self, make: Callable[[], Made]) -> Made | None:
        """What `make` returns, or None when it has mistakes."""
        try:
            return make()
        except ConfigError as error:
            self._found += error.mistakes
            return None

    def add(self, mistake: str) -> None:
        """One more."""
        self._found.append(mistake)

    def check(self) -> None:
        """Raise a `ConfigError` with every mistake, if there is any."""
        if self._found:
            raise ConfigError(*self._found)


class Setup(NamedTuple):
    """What a pipeline is configured with."""

    settings: Settings
    device_types: dict[str, DeviceType]
    rules: tuple[AlertRule, ...]


def set_up(config: Path | None, defaults: Mapping[str, Any] | None = None) -> Setup:
    """Load the configuration and what it names, and set up logging by it.

    Raises:
        ConfigError: every mistake in any of it.
    """
    settings = load(Settings, config, dict(defaults or {}))
    logging.configure(settings.log_level)
    mistakes = Mistakes()
    types = mistakes.take(lambda: load_device_types(settings.device_types))
    rules = mistakes.take(lambda: load_rules(settings.alert.rules))
    if types is not None and rules is not None:
        mistakes.take(lambda: check_rules(rules, types, settings.detect.detectors))
    if types is not None and settings.ingest.unknown_types != "keep":
        mistakes.take(lambda: check_device_types(settings.profiles, types))
        if settings.kinesis_source.stream is not None:
            mistakes.take(lambda: check_device_type("[kinesis_source]", settings.kinesis_source.device_type, types))
    mistakes.take(lambda: own_agents(settings))
    mistakes.check()
    assert types is not None
    if settings.ingest.unknown_types == "keep":
        types.setdefault(CATCH_ALL.name, CATCH_ALL)
    assert rules is not None
    return Setup(settings, types, rules)


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


async def finishes(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Whether `work` finishes before `stop` is set; then it is cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    await cancel_and_wait(stopping)
    if working.done():
        working.result()
        return True
    await cancel_and_wait(working)
    return False


def consoles(as_json: bool) -> tuple[Console, Console]:
    """Where the live view goes, and the result: with JSON on standard output the view is on standard error."""
    return (Console(stderr=True), Console()) if as_json else (Console(), Console())


async def newest_append_ms(log: Log) -> int:
    """Append time that every raw record is older than, ms, to the minute; 0 on an empty log.

    But for those with a time that nothing here can have: somebody else's producer may write what it likes.
    """
    minutes = [tally.minute_ms for tally in await log.tallies(topics.RAW) if tally.minute_ms < LATEST_MS]
    return max(minutes, default=-MINUTE_MS) + MINUTE_MS
