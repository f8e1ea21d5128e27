"""What the commands of `headrace query` share: options, times, and the way from a question to its answer on screen."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from headrace.cli.moments import duration, moment
from headrace.cli.opened_archive import opened_reader
from headrace.cli.opened_database import database_folder, opened_database
from headrace.cli.query_view import show_about
from headrace.cli.running import Mistakes, config_option
from headrace.cli.settings import Settings
from headrace.connectors.timescale.query_pool import QueryError
from headrace.connectors.timescale.store import TIMEOUT, Store
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.config import load

Answer = TypeVar("Answer")
Command = Callable[..., None]

_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder with the embedded database. Not needed where [database] dsn names a server.",
)


@dataclass(frozen=True, slots=True)
class Times:
    """Reads times and durations of the command line; relative ones count back from `as_of_ms`."""

    as_of_ms: int

    def moment(self, option: str, text: str | None) -> int | None:
        """`-24h`, `24h`, or ISO 8601; None stays None."""
        return None if text is None else moment(option, text.strip().removeprefix("-"), self.as_of_ms)

    def duration(self, option: str, text: str) -> float:
        """Seconds."""
        return duration(option, text)

    def range(self, start: str, end: str | None) -> tuple[int, int]:
        """Where it begins and ends, ms.

        Raises:
            ConfigError: every mistake.
        """
        wrong = Mistakes()
        first = wrong.take(lambda: self.moment("--start", start))
        last = self.as_of_ms if end is None else wrong.take(lambda: self.moment("--end", end))
        wrong.check()
        assert first is not None
        assert last is not None
        if first >= last:
            raise QueryError("--start is not before --end")
        return first, last


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks a question with the options that every command has."""

    config: Path | None
    data: Path | None
    as_json: bool
    timeout: float

    def __call__(
        self,
        show: Callable[[Answer], None],
        question: Callable[[Store, Times], Awaitable[Answer] | AsyncIterator[Answer]],
        more: Callable[[Settings, Path | None, Answer], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        """Ask, and show the answer, or each of the pages that it comes in.

        Args:
            more: finds what else the JSON object says, and shows it.
        """
        wrong = Mistakes()
        settings = wrong.take(lambda: load(Settings, self.config))
        if settings is not None:
            logging.configure(settings.log_level)
            wrong.take(lambda: database_folder(settings, self.data))
        wrong.check()
        assert settings is not None
        asyncio.run(self._answer(settings, show, question, more))

    async def _answer(
        self,
        settings: Settings,
        show: Callable[[Answer], None],
        question: Callable[[Store, Times], Awaitable[Answer] | AsyncIterator[Answer]],
        more: Callable[[Settings, Path | None, Answer], Awaitable[dict[str, Any]]] | None,
    ) -> None:
        async with (
            opened_database(settings, self.data) as connect,
            opened_reader(settings, self.data, connect) as archive,
        ):
            store = Store(
                connect,
                SystemClock(),
                grace=settings.rollup.grace,
                archive=archive,
                timeout=self.timeout,
                connections=1,
            )
            async with store:
                asked = question(store, Times(await store.as_of_ms()))
                if isinstance(asked, AsyncIterator):
                    async with aclosing(asked) as pages:  # type: ignore[type-var]
                        async for page in pages:
                            self._show(page, show, {})
                    return
                answer = await asked
        self._show(answer, show, {} if more is None else await more(settings, self.data, answer))

    def _show(self, answer: Answer, show: Callable[[Answer], None], more: dict[str, Any]) -> None:
        if self.as_json:
            document = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
            click.echo(document if not more else orjson.dumps({**orjson.loads(document), **more}))
        else:
            show(answer)
            show_about(answer.about)  # type: ignore[attr-defined]


def answering(command: Command) -> Command:
    """The options that every command has; the command gets an `Asking` as its first argument."""

    @_data_option
    @config_option
    @click.option("--timeout", type=click.FloatRange(min=0.001), default=TIMEOUT, show_default=True, help="Seconds.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; times in ms since 1970.")
    @functools.wraps(command)
    def asked(
        *arguments: Any, config: Path | None, data: Path | None, as_json: bool, timeout: float, **more: Any
    ) -> None:
        command(Asking(config, data, as_json, timeout), *arguments, **more)

    return asked


def range_options(start: str) -> Callable[[Command], Command]:
    """`--start` and `--end`."""
    return _with(
        click.option("--start", metavar="TIME", default=start, show_default=True, help="Where the range begins."),
        click.option("--end", metavar="TIME", help="Where it ends. Default: the newest message that is stored."),
    )


def since_options(command: Command) -> Command:
    """`--start` and `--end`, both open."""
    return _with(
        click.option("--start", metavar="TIME", help="From TIME on."),
        click.option("--end", metavar="TIME", help="Before TIME."),
    )(command)


def page_options(limit: int, most: int, what: str) -> Callable[[Command], Command]:
    """`--limit` and `--cursor`."""
    least = 0 if "0 for all" in what else 1
    return _with(
        click.option(
            "--limit", type=click.IntRange(least, most), default=limit, show_default=True, help=f"{what.capitalize()}."
        ),
        click.option("--cursor", help="Go on where an answer ended, with the cursor that it gave."),
    )


def choosing(*names: str) -> Callable[[Command], Command]:
    """Some of `--type`, `--metric` and `--device`; the latter two may be repeated."""
    options = {
        "--type": click.option("--type", "device_type", metavar="TYPE", help="Device type; else looked up by device."),
        "--metric": click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Only this; repeatable."),
        "--device": click.option("--device", "devices", metavar="ID", multiple=True, help="Only this; repeatable."),
    }
    return _with(*(options[name] for name in names))


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
