"""`headrace demo`: a simulated fleet through the whole path, over real MQTT into a real database, with a live view."""

import asyncio
from pathlib import Path
from typing import Any

import click
import orjson
from pydantic import ValidationError
from rich.console import Console

from headrace.cli.latency import LatencyProbe
from headrace.cli.live import LiveView
from headrace.cli.mqtt_path import MqttPath, mqtt_path
from headrace.cli.pipeline import Pipeline
from headrace.cli.report import Report
from headrace.cli.running import (
    DEFAULT_FOLDER,
    Mistakes,
    Setup,
    config_option,
    consoles,
    data_option,
    json_option,
    newest_append_ms,
    set_up,
    stop_on_signals,
)
from headrace.connectors.fleet import Fleet
from headrace.connectors.fleet_config import SimulatedFleetConfig
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock, VirtualClock
from headrace.engine.config import mistakes
from headrace.engine.errors import ConfigError

#: Twenty seconds at the default speed are twenty minutes, in which the detectors have to learn.
DEMO_DEFAULTS: dict[str, Any] = {
    "detect": {"pane": 60, "warm_up": 30, "parameters": {"ensemble": {"warm_up": 80, "threshold": 5}}},
    "rollup": {"grace": 120},
}
#: The first demo in a folder starts this long ago, virtual time.
START_AGO_MS = 30 * 86_400_000
HOUR_MS = 3_600_000
#: At a million a demo passes a year in half a minute; MAX_SECONDS are a year.
MAX_SPEED = 1_000_000
MAX_SECONDS = 31_536_000
#: Share of messages left out from which the broker, not a busy moment, is what holds the fleet back.
MOST_SKIPPED = 0.05


@click.command()
@click.option("--devices", type=int, default=50, show_default=True, help="Simulated devices.")
@click.option("--rate", type=float, default=500.0, show_default=True, help="Messages per real second, of all devices.")
@click.option(
    "--seconds", type=float, help="Stop after this many real seconds, when everything is stored. Default: Ctrl-C."
)
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same fleet.")
@click.option("--speed", type=float, default=60.0, show_default=True, help="Virtual seconds per real second.")
@click.option(
    "--faults/--no-faults", default=True, help="Duplicate, late, malformed, conflicting and spoofed messages."
)
@data_option
@config_option
@json_option
def demo(
    devices: int,
    rate: float,
    seconds: float | None,
    seed: int,
    speed: float,
    faults: bool,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Watch a simulated fleet stream through the whole path.

    Devices publish over MQTT; agents ingest, roll up, detect and alert; PostgreSQL stores. Time runs 60 times as fast.
    The data folder keeps everything: the next demo goes on where this one stopped.
    """
    found: list[str] = [
        f"--{name} must be more than 0 and at most {most:,}, not {value:g}"
        for name, value, most in [("speed", speed, MAX_SPEED), ("seconds", seconds, MAX_SECONDS)]
        if value is not None and not 0 < value <= most
    ]
    no_faults = {} if faults else dict.fromkeys(("duplicates", "late", "malformed", "conflicting", "spoofed"), 0.0)
    fleet = None
    try:
        fleet = SimulatedFleetConfig(seed=seed, devices=devices, rate=rate, **no_faults)
    except ValidationError as error:
        found += mistakes(error, "fleet")
    wrong = Mistakes(found)
    setup = wrong.take(lambda: set_up(config, DEMO_DEFAULTS))
    wrong.check()
    assert fleet is not None
    assert setup is not None
    asyncio.run(Demo(setup, fleet, data or DEFAULT_FOLDER / "demo", speed, seconds, as_json).run())


class Demo:
    """One run of the demo."""

    def __init__(
        self,
        setup: Setup,
        fleet: SimulatedFleetConfig,
        folder: Path,
        speed: float,
        seconds: float | None,
        as_json: bool,
    ) -> None:
        self._setup = setup
        self._fleet_config = fleet
        self._folder = folder
        self._seconds = seconds
        self._as_json = as_json
        self._clock = VirtualClock(0, speed)
        self._probe = LatencyProbe(self._clock)
        self._fleet: Fleet | None = None

    async def run(self) -> None:
        """Run until told to stop, then report."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        screen.print(f"starting in {self._folder} …", style="dim")
        pipeline = Pipeline(self._folder, *self._setup, self._clock, on_committed=self._probe.committed)
        async with pipeline:
            for agent in pipeline.own_agents:
                screen.print(str(agent), style="dim", highlight=False, soft_wrap=True)
            first = (SystemClock().now_ms() - START_AGO_MS) // HOUR_MS * HOUR_MS
            self._clock.start(max(first, await newest_append_ms(pipeline.log) + 1))
            before = (await pipeline.ledger()).stored
            began = self._clock.monotonic()
            view = LiveView(pipeline, self._clock, screen, "headrace demo", self._note)
            showing = asyncio.create_task(view.run())
            try:
                await pipeline.run(lambda stopping: self._feed(pipeline, stopping), stop)
            finally:
                await cancel_and_wait(showing)
            seconds = self._clock.monotonic() - began
            report = await pipeline.report(before, seconds, self._probe.latency())
        self._show(report, result)

    async def _feed(self, pipeline: Pipeline, stop: asyncio.Event) -> None:
        """Fleet → broker → source, until `stop` or the time is up; then wait for what is still in the broker."""
        async with mqtt_path(self._folder, self._clock, pipeline.intake, self._fleet_config.device_type) as path:
            await self._publish(path, stop)
            if not stop.is_set():
                await path.drain()

    async def _publish(self, path: MqttPath, stop: asyncio.Event) -> None:
        state = _FleetState(self._folder / "fleet.json")
        fleet = self._fleet = Fleet(
            self._fleet_config,
            self._clock,
            path.publish,
            start_sequence=state.load(),
            on_published=self._probe.published,
        )
        fleet_stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(fleet_stop))
        stopping = asyncio.create_task(stop.wait())
        began = self._clock.monotonic()
        try:
            while not stop.is_set() and not running.done():
                left = 1.0 if self._seconds is None else self._seconds - (self._clock.monotonic() - began)
                if left <= 0:
                    break
                await asyncio.wait([running, stopping], timeout=min(1.0, left), return_when=asyncio.FIRST_COMPLETED)
                state.save(fleet.next_sequence)
        finally:
            fleet_stop.set()
            stopping.cancel()
            await running
            state.save(fleet.next_sequence)

    def _note(self) -> str:
        if self._fleet is None:
            return "starting"
        now = self._fleet.statistics()
        note = f"fleet: {now.published:,} published, {now.achieved_rate:,.0f}/s"
        if now.skipped > MOST_SKIPPED * now.published:
            note += f" of {now.asked_rate:,.0f}/s asked: the broker takes no more"
        return note

    def _show(self, report: Report, console: Console) -> None:
        if self._as_json:
            click.echo(report.json())
        else:
            report.show(console)
            console.print(f"data folder: {self._folder}", style="dim")


class _FleetState:
    """Which sequence the fleet has reached, so that it goes on there; saved as it runs, whatever ends it."""

    #: Sequences that may have been used since the last save.
    MARGIN = 10_000

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> int:
        try:
            return int(orjson.loads(self._path.read_bytes())["next_sequence"]) + self.MARGIN
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged ({error}); delete it to start the fleet's sequence anew"
            ) from error

    def save(self, next_sequence: int) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(orjson.dumps({"next_sequence": next_sequence}))
        partial.replace(self._path)
