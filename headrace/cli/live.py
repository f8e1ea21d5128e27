"""The live view of a running pipeline: rates, lag, watermark, open alerts, ledger; plain lines off a terminal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.cli.agents import GROUP
from headrace.cli.pipeline import Pipeline
from headrace.cli.report import iso_time
from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError
from headrace.engine.ledger import Ledger, lag
from headrace.schemas import topics

#: Seconds between two looks, on a terminal and off it.
INTERVAL, PLAIN_INTERVAL = 0.5, 5.0
#: Blocks of a bar.
BAR = 24


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the pipeline. Rates are per real second."""

    seconds: float
    ledger: Ledger
    accepted_rate: float
    stored_rate: float
    agents_lag: int
    sink_lag: int
    sink_state: str
    watermark_ms: int | None
    open_alerts: int
    anomalies: int
    closed_windows: int
    sent: Mapping[str, int]
    note: str


class LiveView:
    """Shows a pipeline until cancelled.

    Args:
        pipeline: what to look at.
        clock: real time for rates.
        console: where to; plain lines if it is no terminal.
        title: first line.
        note: a last line of the caller's, asked for at every look.
    """

    def __init__(
        self, pipeline: Pipeline, clock: Clock, console: Console, title: str, note: Callable[[], str] = lambda: ""
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._console = console
        self._title = title
        self._note = note
        self._began = clock.monotonic()
        self._last: Snapshot | None = None
        self.first_stored: float | None = None

    async def run(self) -> None:
        """Look and show, again and again."""
        if not self._console.is_terminal:
            await self._look()  # rates are since the look before
            while True:
                await self._clock.sleep(PLAIN_INTERVAL)
                snapshot = await self._look()
                if snapshot is not None:
                    self._console.print(_line(snapshot), highlight=False, soft_wrap=True)
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            while True:
                snapshot = await self._look()
                if snapshot is not None:
                    live.update(self._panel(snapshot), refresh=True)
                await self._clock.sleep(INTERVAL)

    async def _look(self) -> Snapshot | None:
        pipeline, last = self._pipeline, self._last
        try:
            ledger = await pipeline.ledger()
            anomalies = await pipeline.log.end_offsets(topics.ANOMALIES)
            windows = await pipeline.log.end_offsets(topics.ROLLUPS)
            agents_lag = await lag(pipeline.log, GROUP, topics.RAW)
            sink_lag = await lag(pipeline.log, pipeline.sink.name, topics.READINGS)
            sent = await pipeline.sent()
        except (TimeoutError, HeadraceError, OSError):
            return None  # the database or the log is coming up or going down: the next look will tell
        seconds = self._clock.monotonic() - self._began
        elapsed = max(seconds - last.seconds, 1e-3) if last else max(seconds, 1e-3)
        self._last = Snapshot(
            seconds=seconds,
            ledger=ledger,
            accepted_rate=(ledger.accepted - last.ledger.accepted) / elapsed if last else 0.0,
            stored_rate=(ledger.stored - last.ledger.stored) / elapsed if last else 0.0,
            agents_lag=agents_lag,
            sink_lag=sink_lag,
            sink_state=pipeline.sink_runner.statistics().state,
            watermark_ms=pipeline.agents.rollup.watermark(),
            open_alerts=pipeline.agents.alert.open_alerts(),
            anomalies=sum(anomalies.values()),
            closed_windows=sum(windows.values()),
            sent=sent,
            note=self._note(),
        )
        return self._last

    def _panel(self, now: Snapshot) -> Panel:
        rates = Table.grid(padding=(0, 3))
        for _ in range(4):
            rates.add_column()
        rates.add_row("accepted", f"[bold]{now.accepted_rate:>9,.0f}[/]/s", "lag agents", f"{now.agents_lag:>9,}")
        rates.add_row(
            "stored", f"[bold]{now.stored_rate:>9,.0f}[/]/s", "lag sink", f"{now.sink_lag:>9,} ({now.sink_state})"
        )
        alerts = f"[bold red]{now.open_alerts}[/] open" if now.open_alerts else "none open"
        rates.add_row("watermark", _time(now.watermark_ms), "alerts", alerts)
        rates.add_row("closed windows", f"{now.closed_windows:>9,}", "anomalies", f"{now.anomalies:>9,}")
        for topic, count in now.sent.items():
            rates.add_row(Text(topic), f"{count:>9,}", "yours", "")
        parts: list[RenderableType] = [rates, Text(), _ledger(now.ledger)]
        for reason in self._pipeline.app.stopped_partitions.values():
            parts.append(Text(reason, style="bold red"))
        if now.note:
            parts.append(Text(now.note, style="dim"))
        return Panel(
            Group(*parts), title=self._title, subtitle=f"{now.seconds:.0f} s · Ctrl-C stops", title_align="left"
        )


def _ledger(ledger: Ledger) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, value in ledger._asdict().items():
        share = value / ledger.accepted if ledger.accepted else 0.0
        colour = {"accepted": "blue", "stored": "green", "in_flight": "yellow"}.get(name, "magenta")
        filled = round(share * BAR) or (1 if value else 0)
        table.add_row(name.replace("_", " "), f"{value:,}", Text("█" * filled, style=colour))
    return table


def _line(now: Snapshot) -> str:
    terms = " ".join(f"{name}={value}" for name, value in now.ledger._asdict().items())
    sent = "".join(f"{topic}={count} " for topic, count in now.sent.items())
    return (
        f"{now.seconds:.0f}s accepted/s={now.accepted_rate:.0f} stored/s={now.stored_rate:.0f} "
        f"lag={now.agents_lag}+{now.sink_lag} watermark={_time(now.watermark_ms)} open_alerts={now.open_alerts} "
        f"anomalies={now.anomalies} windows={now.closed_windows} {sent}{terms} {now.note}".rstrip()
    )


def _time(time_ms: int | None) -> str:
    if time_ms is None:
        return "–"
    return iso_time(time_ms)
