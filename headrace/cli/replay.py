"""`headrace replay`: a real data set through the whole path, on a clock that follows the data; or the log itself."""

import asyncio
import re
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from headrace.cli.mqtt_path import mqtt_path
from headrace.cli.pipeline import Pipeline
from headrace.cli.replay_log import replay_log
from headrace.cli.report import Report, iso_time
from headrace.cli.running import (
    DEFAULT_FOLDER,
    Mistakes,
    Setup,
    config_option,
    consoles,
    data_option,
    json_option,
    set_up,
    stop_on_signals,
)
from headrace.connectors.file_delivery import PublishDelivery
from headrace.connectors.file_formats import find_files
from headrace.connectors.file_open import open_files
from headrace.connectors.files import FileSource
from headrace.connectors.files import Progress as FileProgress
from headrace.connectors.mapping import Mapping, load_mapping
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import ManualClock
from headrace.engine.errors import ConfigError

#: Seconds between two looks at the progress, on a terminal and off it.
INTERVAL, PLAIN_INTERVAL = 0.25, 5.0
#: Options of either form of the command.
_OF_FILES = ("speed", "mapping", "via")
_OF_THE_LOG = ("agent", "from_", "to", "warm_up", "dry_run")


class _Speed(click.ParamType):
    """`max`, or seconds of data per real second."""

    name = "N|max"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value == "max":
            return None
        try:
            speed = float(str(value))
        except ValueError:
            self.fail(f"{value} is neither a number nor max", param, ctx)
        if not 0 < speed < float("inf"):
            self.fail(f"{value} is not above 0", param, ctx)
        return speed


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--speed", type=_Speed(), default="max", show_default=True, help="Seconds of data per real second.")
@click.option("--mapping", help="Name of a shipped mapping, or a TOML file. Default: by the columns.")
@click.option("--via", type=click.Choice(["log", "mqtt"]), default="log", show_default=True, help="How rows come in.")
@click.option("--agent", metavar="NAME", help="Instead of PATH: run this agent over the log again.")
@click.option("--from", "from_", metavar="TIME", help="With --agent: results from TIME on, ISO 8601 or as 2h (ago).")
@click.option("--to", metavar="TIME", help="With --agent: up to TIME. Default: to where the live agents are.")
@click.option(
    "--warm-up",
    metavar="DURATION",
    help="With --agent: read so much before --from, as 2h, without sending anything. Default: all that the log keeps.",
)
@click.option("--dry-run", is_flag=True, help="With --agent: only say what would be read.")
@data_option
@config_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    path: Path | None,
    speed: float | None,
    mapping: str | None,
    via: str,
    agent: str | None,
    from_: str | None,
    to: str | None,
    warm_up: str | None,
    dry_run: bool,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Replay a data set, or the log itself.

    headrace replay PATH sends PATH, a data file or a folder of them (CSV, NDJSON, Parquet; gzip too), through the whole
    path. Files of a folder are merged by event time. A replay that was stopped goes on where it was, without doubles;
    totals cover all of it.

    headrace replay --from TIME --agent NAME reads the log again, into a new instance of one agent (rollup, detect or
    alert), for when the agent was repaired. What it sends replaces in the database what it sent the first time; the
    live agents go on undisturbed. Windows and baselines reach back before TIME: so everything before it that the log
    keeps is read first, see --warm-up. See docs/guides/replay-the-log.md.
    """
    mistakes = _unfit(ctx, path)
    if path is None:
        replay_log(agent, from_, to, warm_up, dry_run, data, config, as_json, mistakes)
        return
    wrong = Mistakes(mistakes)
    setup = wrong.take(lambda: set_up(config))
    chosen = wrong.take(lambda: load_mapping(mapping)) if mapping else None
    wrong.check()
    assert setup is not None
    found, _ = open_files(find_files(path), chosen)  # before anything is started or made
    if found.device_type not in setup.device_types:
        known = ", ".join(sorted(setup.device_types))
        raise ConfigError(f"the mapping's device type {found.device_type} is not known; there are {known}")
    folder = data or DEFAULT_FOLDER / f"replay-{_folder_name(path)}"
    asyncio.run(Replay(setup, path, found, folder, speed, via, as_json).run())


def _unfit(ctx: click.Context, path: Path | None) -> list[str]:
    """The options that do not go with PATH, or not without it."""
    names = _OF_FILES if path is None else _OF_THE_LOG
    given = [name for name in names if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    options = ", ".join("--" + name.strip("_").replace("_", "-") for name in given)
    if path is None and not any(ctx.params[name] for name in _OF_THE_LOG):
        raise ConfigError("name a PATH to replay, or give --from and --agent to replay the log")
    if given:
        return [f"{options}: only for a PATH" if path is None else f"{options}: only without a PATH"]
    return []


def _folder_name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name.split(".")[0] or "data")


class Replay:
    """One run of a replay."""

    def __init__(
        self,
        setup: Setup,
        path: Path,
        mapping: Mapping,
        folder: Path,
        speed: float | None,
        via: str,
        as_json: bool,
    ) -> None:
        self._setup = setup
        self._path = path
        self._mapping = mapping
        self._folder = folder
        self._speed = speed
        self._via = via
        self._as_json = as_json
        self._clock = ManualClock(0)

    async def run(self) -> None:
        """Deliver what is left, wait until it is stored, report."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        async with Pipeline(self._folder, *self._setup, self._clock) as pipeline:
            for agent in pipeline.own_agents:
                screen.print(str(agent), style="dim", highlight=False, soft_wrap=True)
            source = FileSource(
                self._path,
                self._mapping,
                pipeline.intake,
                self._clock,
                self._speed,
                wait_capacity=pipeline.wait_capacity,
            )
            before = (await pipeline.ledger()).stored
            began = self._clock.monotonic()
            showing = asyncio.create_task(self._show_progress(source, pipeline, screen))
            try:
                await pipeline.run(lambda stopping: self._feed(source, pipeline, stopping), stop)
            finally:
                await cancel_and_wait(showing)
            report = await pipeline.report(before, self._clock.monotonic() - began)
        self._show(report, source.progress(), result)

    async def _feed(self, source: FileSource, pipeline: Pipeline, stop: asyncio.Event) -> None:
        if self._via == "log":
            await source.run(stop)
            return
        device_type = source.mapping.device_type
        async with mqtt_path(self._folder, pipeline.log, self._clock, pipeline.intake, device_type) as publisher:
            source.deliver_to(PublishDelivery(publisher.publish, publisher.drain, pipeline.intake))
            await source.run(stop)

    async def _show_progress(self, source: FileSource, pipeline: Pipeline, console: Console) -> None:
        if not console.is_terminal:
            while True:
                await self._clock.sleep(PLAIN_INTERVAL)
                now, left = source.progress(), await pipeline.left()
                console.print(f"{now.rows_done} of {_total(now)} rows, {_event_day(now)}, {left} records to process")
        columns = (
            TextColumn("{task.fields[day]}"),
            BarColumn(),
            TextColumn("{task.fields[rows]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("replay", total=None, day="", rows="")
            while True:
                self._advance(bar, task, source.progress(), await pipeline.left())
                await self._clock.sleep(INTERVAL)

    @staticmethod
    def _advance(bar: Progress, task: TaskID, now: FileProgress, left: int) -> None:
        rows = f"{now.rows_done:,} of {_total(now)} rows, {left:,} records to process"
        bar.update(task, completed=now.rows_done, total=now.rows_total, day=_event_day(now), rows=rows)

    def _show(self, report: Report, progress: FileProgress, console: Console) -> None:
        if self._as_json:
            click.echo(report.json(rows=progress.rows_done, finished=progress.finished))
            return
        report.show(console)
        if progress.disordered:
            console.print(f"{progress.disordered:,} rows were older than one before them in their file", style="yellow")
        if progress.unmapped:
            console.print(f"{progress.unmapped:,} rows could not be mapped and are dead-lettered", style="yellow")
        state = "finished" if progress.finished else "stopped half-way; run the same command to go on"
        console.print(f"{progress.rows_done:,} rows, {state}. Data folder: {self._folder}", style="dim")


def _total(now: FileProgress) -> str:
    if now.rows_total is None:
        return "?"
    return f"{now.rows_total:,}" if now.rows_total_exact else f"about {now.rows_total:,}"


def _event_day(now: FileProgress) -> str:
    return "reading" if now.event_time_ms is None else iso_time(now.event_time_ms)[:10]
