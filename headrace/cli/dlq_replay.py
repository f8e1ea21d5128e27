"""`headrace dlq replay`: the plan for people, the question, the progress, the result."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace.cli.dlq_view import letter_json, show_letters
from headrace.cli.moments import iso_ms
from headrace.cli.opened_log import OpenedLog, opened_log
from headrace.cli.running import consoles, stop_on_signals
from headrace.cli.settings import Settings
from headrace.connectors.reroute import Reroute
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.dead_letter_reader import DeadLetter, LetterId, Selection, fetch, find, letter_of
from headrace.engine.errors import ConfigError
from headrace.engine.redrive import REDRIVES, Plan, Redrive, forget_dropped, plan, redriven
from headrace.schemas import topics

#: Letters that a dry run shows.
FIRST = 10
#: Seconds between two looks at the progress, on a terminal and off it.
INTERVAL, PLAIN_INTERVAL = 0.25, 5.0
GUIDE = "see docs/guides/dead-letters.md"
#: Agents that work on readings; `headrace replay --agent` runs one of them alone.
ON_READINGS = ("rollup", "detect", "alert")
#: By topic, who reads it and must not see a record twice. The sink knows the other topics' records again by their keys.
READERS = {
    topics.RAW: ("ingest",),
    topics.READINGS: (*ON_READINGS, "timescale"),
    topics.READINGS_PRIORITY: ("alert",),
    topics.ALERTS: ("timescale", "whoever is notified"),
}


@dataclass(slots=True)
class Kept:
    """Letters of one agent and topic that stay where they are, with why, and what to do instead."""

    agent: str
    topic: str
    count: int
    reason: str
    advice: str


class DlqReplay:
    """One run of the command.

    Args:
        ids: the letters, if they were named one by one.
        again: also those that were sent back before.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path | None,
        selection: Selection,
        ids: Sequence[LetterId],
        again: bool,
        as_json: bool,
    ) -> None:
        self._settings = settings
        self._data = data
        self._selection = selection
        self._ids = ids
        self._again = again
        self._as_json = as_json
        self._clock = SystemClock()

    async def run(self, *, dry_run: bool, ask: bool) -> None:
        """Plan, ask, send, report.

        Raises:
            ConfigError: a letter that was named is not there, or cannot be sent back.
        """
        screen, result = consoles(self._as_json)
        async with opened_log(self._settings, self._data) as opened:
            async with aclosing(self._letters(opened)) as letters:
                found = await plan(opened.log, letters, READERS, again=self._again)
            kept = self._kept(found)
            if self._ids and kept:
                raise ConfigError(*(f"{each.count} of these, from {each.agent}: {_said(each)}" for each in kept))
            if dry_run:
                self._show_plan(found, kept, result)
                return
            sent = 0
            if found.letters and (not ask or self._agreed(found, kept, screen)):
                sent = await self._send(opened, found, screen)
        self._show_result(found, kept, sent, result)

    async def _letters(self, opened: OpenedLog) -> AsyncGenerator[DeadLetter, None]:
        if self._ids:
            for letter_id, record in (await fetch(opened.log, self._ids)).items():
                yield letter_of(letter_id, record)
            return
        async with aclosing(find(opened.log, self._selection)) as letters:
            async for letter in letters:
                yield letter

    async def _send(self, opened: OpenedLog, found: Plan, screen: Console) -> int:
        async with opened.turn("dlq-replay", REDRIVES) as turn:
            # Another run may have sent some since the plan was made; from here on there is no other.
            before = await redriven(opened.log)
            await forget_dropped(turn, before)
            left = [letter for letter in found.letters if self._again or letter.id not in before]
            redrive = Redrive(turn, self._clock, left, before, Reroute(self._settings.profiles))
            showing = asyncio.create_task(self._show_progress(redrive, len(left), screen))
            try:
                await redrive.run(stop_on_signals())
            finally:
                await cancel_and_wait(showing)
        return redrive.sent

    def _agreed(self, found: Plan, kept: Sequence[Kept], screen: Console) -> bool:
        self._show_counts(found, kept, screen)
        return click.confirm(f"send {len(found.letters):,} back", err=self._as_json)

    def _kept(self, found: Plan) -> list[Kept]:
        kept: dict[tuple[str, str, str], Kept] = {}
        earliest: dict[tuple[str, str, str], int] = {}
        for letter, reason in found.kept:
            key = (letter.agent, letter.origin.topic, reason)
            kept.setdefault(key, Kept(letter.agent, letter.origin.topic, 0, reason, "")).count += 1
            earliest[key] = min(earliest.get(key, letter.time_ms), letter.time_ms)
        for key, group in kept.items():
            group.advice = self._advice(group, earliest[key])
        return list(kept.values())

    def _advice(self, group: Kept, earliest_ms: int) -> str:
        if group.topic == topics.READINGS and group.agent in ON_READINGS:
            data = f" --data {self._data}" if self._data else ""
            return (
                f"when the agent is repaired: headrace replay --agent {group.agent} --from {iso_ms(earliest_ms)}{data}"
            )
        return GUIDE

    # -- showing

    async def _show_progress(self, redrive: Redrive, total: int, console: Console) -> None:
        if not console.is_terminal:
            while True:
                await self._clock.sleep(PLAIN_INTERVAL)
                console.print(f"{redrive.sent:,} of {total:,} sent back")
        columns = (TextColumn("sending back"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=total)
            while True:
                bar.update(task, completed=redrive.sent)
                await self._clock.sleep(INTERVAL)

    def _show_plan(self, found: Plan, kept: Sequence[Kept], console: Console) -> None:
        first = found.letters[:FIRST]
        if self._as_json:
            letters = [letter_json(letter, None) for letter in first]
            _print_json({**_counts(found, kept), "sent": 0, "finished": False, "dry_run": True, "first": letters})
            return
        self._show_counts(found, kept, console)
        if first:
            console.print(f"the first {len(first)}, in order:" if len(first) < len(found.letters) else "in order:")
            show_letters(first, {}, with_state=False)

    def _show_result(self, found: Plan, kept: Sequence[Kept], sent: int, console: Console) -> None:
        finished = sent == len(found.letters)
        if self._as_json:
            _print_json({**_counts(found, kept), "sent": sent, "finished": finished, "dry_run": False})
            return
        if not found.letters:
            self._show_counts(found, kept, console)
            return
        end = "" if finished else "; the same command goes on with the others"
        console.print(f"{sent:,} of {len(found.letters):,} sent back{end}")

    @staticmethod
    def _show_counts(found: Plan, kept: Sequence[Kept], console: Console) -> None:
        targets = Counter(letter.origin.topic for letter in found.letters)
        for topic, count in targets.items():
            console.print(f"{count:,} to send back to {topic}", highlight=False)
        if not targets:
            console.print("nothing to send back")
        if found.done:
            console.print(f"{len(found.done):,} were sent back before and are left out; --again takes them too")
        for each in kept:
            line = f"{each.count:,} of {each.agent} from {each.topic or '?'} stay: {_said(each)}"
            console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _said(kept: Kept) -> str:
    return f"{kept.reason}; {kept.advice}"


def _counts(found: Plan, kept: Iterable[Kept]) -> dict[str, Any]:
    return {
        "to_send": dict(Counter(letter.origin.topic for letter in found.letters)),
        "sent_before": len(found.done),
        "kept": [asdict(each) for each in kept],
    }


def _print_json(document: dict[str, Any]) -> None:
    click.echo(orjson.dumps(document).decode())
