"""`headrace demo`: a simulated fleet through the whole path, over real MQTT into a real database, with a live view."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
from pydantic import ValidationError
from rich.console import Console

from headrace.cli.fault_options import TruthFile, fault_shares
from headrace.cli.latency import LatencyProbe
from headrace.cli.live import LiveView
from headrace.cli.mqtt_path import mqtt_path
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
from headrace.connectors.fleet_config import MESSAGE_FAULTS, SimulatedFleetConfig
from headrace.connectors.fleet_episodes import Episode
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock, VirtualClock
from headrace.engine.config import mistakes
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near

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
#: Share of messages left out from which the listener, not a busy moment, is what holds the fleet back.
MOST_SKIPPED = 0.05


@click.command()
@click.option("--devices", type=int, default=50, show_default=True, help="Simulated devices.")
@click.option("--rate", type=float, default=500.0, show_default=True, help="Messages per real second, of all devices.")
@click.option(
    "--seconds", type=float, help="Stop after this many real seconds, when everything is stored. Default: Ctrl-C."
)
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same fleet.")
@click.option("--speed", type=float, default=60.0, show_default=True, help="Virtual seconds per real second.")
@click.option("--type", "type_name", default="environmental", show_default=True, help="Device type of all devices.")
@click.option(
    "--faults/--no-faults", default=True, help="Duplicate, late, malformed, conflicting and spoofed messages."
)
@click.option(
    "--fault",
    "shares",
    multiple=True,
    metavar="KIND=SHARE",
    help="How often something goes wrong, 0 to 1; see docs/guides/simulator.md. Again for another kind.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was wrong with which device, and when, to this file, one JSON object on a line.",
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
    type_name: str,
    faults: bool,
    shares: tuple[str, ...],
    truth: Path | None,
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
    asked = {} if faults else dict.fromkeys(MESSAGE_FAULTS, 0.0)
    asked |= fault_shares(shares, found)
    wrong = Mistakes(found)
    fleet = wrong.take(lambda: _fleet(seed=seed, devices=devices, rate=rate, **asked))
    setup = wrong.take(lambda: set_up(config, DEMO_DEFAULTS))
    device_type = setup and wrong.take(lambda: _device_type(setup.device_types, type_name))
    wrong.check()
    assert fleet is not None
    assert setup is not None
    assert device_type is not None
    with TruthFile(truth) as episodes:
        simulation = Simulation(fleet, device_type, speed, seconds, episodes.write)
        asyncio.run(Demo(setup, simulation, data or DEFAULT_FOLDER / "demo", as_json).run())


def _fleet(**settings: Any) -> SimulatedFleetConfig:
    try:
        return SimulatedFleetConfig(**settings)
    except ValidationError as error:
        raise ConfigError(*mistakes(error, "fleet")) from error


def _device_type(known: Mapping[str, DeviceType], name: str) -> DeviceType:
    if name not in known:
        hint = near(name, known) or f"; there are {', '.join(known)}"
        raise ConfigError(f"--type: there is no device type {name!r}{hint}")
    if not known[name].measures:
        raise ConfigError(f"--type: device type {name} has no field that is a number: nothing to simulate")
    return known[name]


class Simulation(NamedTuple):
    """What a demo simulates.

    Args:
        fleet: how many devices, how fast, what goes wrong.
        device_type: of all devices.
        speed: virtual seconds per real second.
        seconds: real seconds until it stops; None for never.
        on_episode: told of every episode of the fault script.
    """

    fleet: SimulatedFleetConfig
    device_type: DeviceType
    speed: float
    seconds: float | None
    on_episode: Callable[[Episode], None]


class Demo:
    """One run of the demo."""

    def __init__(self, setup: Setup, simulation: Simulation, folder: Path, as_json: bool) -> None:
        self._setup = setup
        self._simulation = simulation
        self._folder = folder
        self._as_json = as_json
        self._clock = VirtualClock(0, simulation.speed)
        self._probe = LatencyProbe(self._clock)
        self._fleet: Fleet | None = None

    async def run(self) -> None:
        """Run until told to stop, then report."""
        stop = stop_on_signals()
        screen, result = consoles(self._as_json)
        screen.print(f"starting in {self._folder} …", style="dim")
        committed = self._probe.committed
        pipeline = Pipeline(self._folder, *self._setup, self._clock, on_committed=committed, notify=True)
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
        """Fleet → listener, until `stop` or the time is up; then wait until all of it is in the log."""
        device_type = self._simulation.device_type.name
        async with mqtt_path(self._folder, pipeline.log, self._clock, pipeline.intake, device_type) as publisher:
            await self._publish(publisher, stop)
            if not stop.is_set():
                await publisher.drain()

    async def _publish(self, publisher: MqttPublisher, stop: asyncio.Event) -> None:
        state = _FleetState(self._folder / "fleet.json")
        fleet = self._fleet = Fleet(
            self._simulation.fleet,
            self._simulation.device_type,
            self._clock,
            publisher.publish,
            start_sequence=state.load(),
            on_episode=self._simulation.on_episode,
            on_published=self._probe.published,
        )
        fleet_stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(fleet_stop))
        stopping = asyncio.create_task(stop.wait())
        began, seconds = self._clock.monotonic(), self._simulation.seconds
        try:
            while not stop.is_set() and not running.done():
                left = 1.0 if seconds is None else seconds - (self._clock.monotonic() - began)
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
            note += f" of {now.asked_rate:,.0f}/s asked: the listener takes no more"
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
