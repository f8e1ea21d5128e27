"""`headrace replay --from TIME --agent NAME`: the log once more, through one agent."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.listing import listing, show_listing
from headrace.cli.moments import duration, iso_ms, moment
from headrace.cli.opened_log import OpenedLog, log_folder, opened_log
from headrace.cli.running import Mistakes, Setup, consoles, set_up, stop_on_signals
from headrace.engine.agent_replay import REPLAYS, AgentReplay
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.operator import Operator
from headrace.engine.replay_stretches import Stretch, cut_short, stretches
from headrace.engine.replicas import read_replicas
from headrace.schemas.window import sort_size

#: Agents that may run over the log again: nobody counts what they send.
AGENTS = ("rollup", "detect")
#: Seconds between two looks at the progress, on a terminal and off it.
INTERVAL, PLAIN_INTERVAL = 0.25, 5.0


@dataclass(frozen=True, slots=True)
class Range:
    """What to replay: append times, ms since 1970 UTC; `warm_up` in seconds, None for all that the log keeps."""

    agent: str
    from_ms: int
    to_ms: int | None
    warm_up: float | None

    @property
    def name(self) -> str:
        """The same for the same command, so that it goes on where it was."""
        parts = [self.agent, iso_ms(self.from_ms)]
        if self.to_ms is not None:
            parts += ["to", iso_ms(self.to_ms)]
        return re.sub(r"[^A-Za-z0-9.-]+", "", "-".join(parts).replace(":", ""))


def replay_log(
    agent: str | None,
    from_: str | None,
    to: str | None,
    warm_up: str | None,
    dry_run: bool,
    data: Path | None,
    config: Path | None,
    as_json: bool,
    mistakes: list[str],
) -> None:
    """Check what was asked for, then do it.

    Args:
        mistakes: found so far.
    Raises:
        ConfigError: all mistakes.
    """
    wrong = Mistakes(mistakes)
    setup = wrong.take(lambda: set_up(config))
    if setup is not None:
        wrong.take(lambda: log_folder(setup.settings, data))
    wanted = wrong.take(lambda: _range(agent, from_, to, warm_up))
    wrong.check()
    assert setup is not None
    assert wanted is not None
    asyncio.run(ReplayLog(setup, data, wanted, as_json).run(dry_run=dry_run))


def _range(agent: str | None, from_: str | None, to: str | None, warm_up: str | None) -> Range:
    now = SystemClock().now_ms()
    wrong = Mistakes(_unfit(agent, from_))
    from_ms = wrong.take(lambda: moment("--from", from_, now)) if from_ else None
    to_ms = wrong.take(lambda: moment("--to", to, now)) if to else None
    seconds = wrong.take(lambda: duration("--warm-up", warm_up)) if warm_up and warm_up != "all" else None
    wrong.check()
    assert agent is not None
    assert from_ms is not None
    if to_ms is not None and from_ms >= to_ms:
        raise ConfigError(f"--from {iso_ms(from_ms)} is not before --to {iso_ms(to_ms)}")
    return Range(agent, from_ms, to_ms, seconds)


def _unfit(agent: str | None, from_: str | None) -> list[str]:
    known = ", ".join(AGENTS)
    mistakes = [] if from_ else ["--from is missing: the time from which on results are wanted"]
    if agent is None:
        mistakes.append(f"--agent is missing: one of {known}")
    elif agent == "ingest":
        mistakes.append(
            "--agent: ingest cannot be replayed, as rollup and detect would count its readings twice; "
            "`headrace dlq replay` sends back what it refused"
        )
    elif agent == "alert":
        mistakes.append(
            "--agent: alert cannot be replayed, as people have worked on its alerts since; "
            "`headrace rules backtest` says what rules would have done"
        )
    elif agent not in AGENTS:
        mistakes.append(f"--agent: there is no agent {agent!r}; there are {known}")
    return mistakes


class ReplayLog:
    """One run of the command."""

    def __init__(self, setup: Setup, data: Path | None, wanted: Range, as_json: bool) -> None:
        self._setup = setup
        self._data = data
        self._wanted = wanted
        self._as_json = as_json
        self._clock = SystemClock()

    async def run(self, *, dry_run: bool) -> None:
        """Plan, replay, report.

        Raises:
            ConfigError: the log keeps too little for results that are like the first time's.
        """
        wanted = self._wanted
        screen, result = consoles(self._as_json)
        operator: Operator = build_agents(*self._setup)._asdict()[wanted.agent]
        async with opened_log(self._setup.settings, self._data) as opened:
            if operator.topic not in {spec.name for spec in await opened.log.topics()}:
                raise ConfigError(f"the log has no topic {operator.topic}: no worker has run on it yet")
            warm_up_ms = None if wanted.warm_up is None else round(wanted.warm_up * 1000)
            plan = await stretches(opened.log, operator.topic, GROUP, wanted.from_ms, wanted.to_ms, warm_up_ms)
            if wanted.warm_up is None:
                await self._check_kept(opened, operator, plan)
            began = self._clock.monotonic()
            replay = None
            if plan and not dry_run:
                replay = await self._replay(opened, operator, plan, screen)
            self._show(plan, replay, self._clock.monotonic() - began, result)

    async def _check_kept(self, opened: OpenedLog, operator: Operator, plan: list[Stretch]) -> None:
        await read_replicas(opened.log, operator, self._clock)
        needs = self._looks_back()
        earliest = await cut_short(opened.log, plan, self._wanted.from_ms, round(needs * 1000))
        if earliest is not None:
            raise ConfigError(
                f"--from: {self._wanted.agent} looks back {needs:g} s, and the log does not keep that much before "
                f"{iso_ms(self._wanted.from_ms)}: results would be partial and replace whole ones. "
                f"Give --from {iso_ms(earliest)} or later, or say with --warm-up how much has to do"
            )

    def _looks_back(self) -> float:
        """How far back in time results of the agent depend on what was there, seconds."""
        settings = self._setup.settings
        longest = max(map(sort_size, settings.rollup.kinds()))
        seconds: dict[str, float] = {
            "rollup": longest / 1000,
            "detect": float(settings.detect.pane * settings.detect.panes),
        }
        return seconds[self._wanted.agent]

    async def _replay(self, opened: OpenedLog, operator: Operator, plan: list[Stretch], screen: Console) -> AgentReplay:
        wanted = self._wanted
        async with opened.turn(f"replay-{wanted.agent}", REPLAYS) as turn:
            most = self._setup.settings.runtime.max_batch_records
            replay = AgentReplay(turn, self._clock, operator, wanted.name, GROUP, plan, wanted.to_ms, most)
            if await replay.progress():
                screen.print("an earlier run was stopped: going on where it was", style="dim")
            showing = asyncio.create_task(self._show_progress(replay, plan, screen))
            try:
                await replay.run(stop_on_signals())
            finally:
                await cancel_and_wait(showing)
        return replay

    # -- showing

    async def _show_progress(self, replay: AgentReplay, plan: list[Stretch], console: Console) -> None:
        total = sum(stretch.records for stretch in plan)
        if not console.is_terminal:
            while True:
                await self._clock.sleep(PLAIN_INTERVAL)
                now = replay.outcome
                console.print(f"{now.read:,} of {total:,} records read, {now.sent.total():,} sent", highlight=False)
        columns = (
            TextColumn(f"replaying {self._wanted.agent}"),
            BarColumn(),
            TextColumn("{task.fields[records]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=total, records="")
            while True:
                now = replay.outcome
                records = f"{now.read:,} of {total:,} records read, {now.sent.total():,} sent"
                bar.update(task, completed=now.read, total=max(total, now.read), records=records)
                await self._clock.sleep(INTERVAL)

    def _show(self, plan: list[Stretch], replay: AgentReplay | None, seconds: float, console: Console) -> None:
        if self._as_json:
            click.echo(orjson.dumps(self._document(plan, replay, seconds)).decode())
        elif not plan:
            console.print(f"nothing to do: the agents have come no further than {iso_ms(self._wanted.from_ms)}")
        elif replay is None:
            self._show_plan(plan)
        else:
            self._show_outcome(replay, seconds, console)

    @staticmethod
    def _show_plan(plan: list[Stretch]) -> None:
        table = listing("partition", "warm-up from", "results from", "to", "records", right=("records",))
        for stretch in plan:
            name = f"{stretch.target.topic}/{stretch.target.partition}"
            table.add_row(name, *map(str, (stretch.warm_up, stretch.first, stretch.end)), f"{stretch.records:,}")
        show_listing(table)

    def _show_outcome(self, replay: AgentReplay, seconds: float, console: Console) -> None:
        now = replay.outcome
        for topic, count in sorted(now.sent.items()):
            console.print(f"{count:,} records sent to {topic}", highlight=False)
        if now.failed:
            console.print(
                f"{self._wanted.agent} failed on {now.failed:,} records, which were left out:", style="yellow"
            )
            for failure in now.failures:
                console.print(f"  {failure}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        state = "finished" if now.finished else f"stopped; to go on: {self._command()}"
        console.print(f"{now.read:,} records read in {seconds:.1f} s, {state}", highlight=False, soft_wrap=True)

    def _command(self) -> str:
        wanted = self._wanted
        parts = ["headrace replay", f"--agent {wanted.agent}", f"--from {iso_ms(wanted.from_ms)}"]
        parts += [f"--to {iso_ms(wanted.to_ms)}"] if wanted.to_ms is not None else []
        parts += [f"--warm-up {wanted.warm_up:g}s"] if wanted.warm_up is not None else []
        parts += [f"--data {self._data}"] if self._data is not None else []
        return " ".join(parts)

    def _document(self, plan: list[Stretch], replay: AgentReplay | None, seconds: float) -> dict[str, object]:
        wanted = self._wanted
        document: dict[str, object] = {
            "agent": wanted.agent,
            "from": iso_ms(wanted.from_ms),
            "to": None if wanted.to_ms is None else iso_ms(wanted.to_ms),
            "partitions": [
                {"partition": each.target.partition, "warm_up": each.warm_up, "first": each.first, "end": each.end}
                for each in plan
            ],
            "dry_run": replay is None and bool(plan),
        }
        if replay is None:
            return {**document, "finished": not plan}
        now = replay.outcome
        return {
            **document,
            "read": now.read,
            "sent": dict(now.sent),
            "failed": now.failed,
            "failures": now.failures,
            "finished": now.finished,
            "seconds": round(seconds, 2),
        }
