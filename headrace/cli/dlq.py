"""`headrace dlq`: look at dead letters, and send them back once their cause is repaired."""

import asyncio
import heapq
import sys
from collections.abc import Callable, Iterable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from headrace.cli.dlq_replay import DlqReplay
from headrace.cli.dlq_view import group_json, grouped, letter_json, record_json, show_groups, show_letter, show_letters
from headrace.cli.moments import iso_ms, moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.engine.clock import SystemClock
from headrace.engine.dead_letter_reader import DeadLetter, LetterId, Selection, fetch, find, letter_of
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.engine.redrive import Note, redriven
from headrace.schemas import topics

#: Letters that a table shows unless told otherwise.
LIMIT = 100

Command = Callable[..., None]


@click.group()
def dlq() -> None:
    """Dead letters: what was refused and why; send it back when the cause is repaired."""


def selecting(command: Command) -> Command:
    """The options that choose dead letters."""
    options = [
        click.option("--agent", metavar="NAME", help="Refused by this agent or sink, such as ingest or timescale."),
        click.option("--reason", metavar="TEXT", help="With TEXT in the reason, in any case."),
        click.option("--device", metavar="ID", help="Of this device."),
        click.option("--since", metavar="TIME", help="Appended at TIME or later: ISO 8601, or a time ago such as 2h."),
        click.option("--until", metavar="TIME", help="Appended before TIME."),
        log_data_option,
        config_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


#: What lists and shows letters has it; `replay` sends back those of telemetry alone.
topic_option = click.option(
    "--topic",
    type=click.Choice([topics.DEAD_LETTERS, topics.NOTIFICATION_DEAD_LETTERS]),
    default=topics.DEAD_LETTERS,
    show_default=True,
    help="Whose; what of notifications.dlq is to be sent again `headrace notifications retry` takes.",
)


@dlq.command("list")
@selecting
@topic_option
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"The newest so many; 0 for all. Default: {LIMIT}, with --json all."
)
@click.option("--summary", is_flag=True, help="Count by agent and reason instead.")
@click.option("--state", is_flag=True, help="Show which were replayed, and when.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_letters(
    agent: str | None,
    reason: str | None,
    device: str | None,
    since: str | None,
    until: str | None,
    data: Path | None,
    config: Path | None,
    topic: str,
    limit: int | None,
    summary: bool,
    state: bool,
    as_json: bool,
) -> None:
    """List dead letters, the newest last.

    TIME is that at which the refused record was appended. FROM names where it is: topic/partition@offset.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    selection = wrong.take(lambda: select(agent, reason, device, since, until))
    wrong.check()
    assert settings is not None
    assert selection is not None
    most = (0 if as_json else LIMIT) if limit is None else limit
    asyncio.run(_list(settings, data, topic, selection, most, summary, state, as_json))


@dlq.command("show")
@click.argument("letter_id", metavar="ID")
@click.option("--raw", is_flag=True, help="Write nothing but the payload's bytes to standard output.")
@topic_option
@log_data_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object; bytes in base64.")
def show(letter_id: str, raw: bool, topic: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show everything about dead letter ID: headers, and the payload as it was sent."""
    wrong = Mistakes(["--raw and --json do not go together"] if raw and as_json else [])
    settings = load_settings(wrong, config, data)
    chosen = wrong.take(lambda: LetterId.parse(letter_id))
    wrong.check()
    assert settings is not None
    assert chosen is not None
    asyncio.run(_show(settings, data, topic, chosen, raw, as_json))


@dlq.command("replay")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@selecting
@click.option("--dry-run", is_flag=True, help="Only say what would be sent where.")
@click.option("--again", is_flag=True, help="Also those that were replayed before.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def replay(
    ids: tuple[str, ...],
    agent: str | None,
    reason: str | None,
    device: str | None,
    since: str | None,
    until: str | None,
    data: Path | None,
    config: Path | None,
    dry_run: bool,
    again: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send dead letters back to the topic they come from, in the order in which they were there.

    Choose them by ID or by options; without any of these it is all of them. Each is sent once, however often this is
    run and whatever ends it; --again sends it once more. A letter that others took from its topic already stays where
    it is, and you are told what to do: see docs/guides/dead-letters.md.
    """
    unfit = [
        (ids and any((agent, reason, device, since, until)), "IDs and options that choose letters do not go together"),
        (not (yes or dry_run or sys.stdin.isatty()), "nobody can be asked here: give --yes, or --dry-run"),
    ]
    wrong = Mistakes([mistake for found, mistake in unfit if found])
    settings = load_settings(wrong, config, data)
    chosen = [wrong.take(partial(LetterId.parse, text)) for text in ids]
    selection = wrong.take(lambda: select(agent, reason, device, since, until))
    wrong.check()
    assert settings is not None
    assert selection is not None
    given = [each for each in chosen if each is not None]
    asyncio.run(DlqReplay(settings, data, selection, given, again, as_json).run(dry_run=dry_run, ask=not yes))


def select(
    agent: str | None, reason: str | None, device: str | None, since: str | None, until: str | None
) -> Selection:
    """What the options choose.

    Raises:
        ConfigError: every mistake in them.
    """
    wrong = Mistakes()
    now = SystemClock().now_ms()
    since_ms = wrong.take(lambda: moment("--since", since, now)) if since else None
    until_ms = wrong.take(lambda: moment("--until", until, now)) if until else None
    wrong.check()
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise ConfigError(f"--since {iso_ms(since_ms)} is not before --until {iso_ms(until_ms)}")
    return Selection(agent, reason, device, since_ms, until_ms)


async def _list(
    settings: Settings,
    data: Path | None,
    topic: str,
    selection: Selection,
    limit: int,
    summary: bool,
    state: bool,
    as_json: bool,
) -> None:
    async with opened_log(settings, data) as opened:
        total = 0
        newest: list[tuple[int, LetterId, DeadLetter]] = []
        async with aclosing(find(opened.log, selection, topic)) as letters:
            async for letter in letters:
                total += 1
                entry = (letter.time_ms, letter.id, letter)
                if limit and not summary and total > limit:
                    heapq.heappushpop(newest, entry)
                else:
                    heapq.heappush(newest, entry)
        notes = await _notes(opened.log, topic)
    shown = [letter for _, _, letter in sorted(newest, key=lambda entry: entry[:2])]
    if summary:
        groups = grouped(shown)
        if as_json:
            _json_lines(map(group_json, groups))
        else:
            show_groups(groups)
    elif as_json:
        _json_lines(letter_json(letter, notes.get(letter.id)) for letter in shown)
    else:
        show_letters(shown, notes, with_state=state)
        if len(shown) < total:
            click.echo(f"the newest {len(shown):,} of {total:,}; --limit 0 shows all", err=True)


async def _show(
    settings: Settings, data: Path | None, topic: str, letter_id: LetterId, raw: bool, as_json: bool
) -> None:
    async with opened_log(settings, data) as opened:
        record = (await fetch(opened.log, [letter_id], topic))[letter_id]
        note = (await _notes(opened.log, topic)).get(letter_id)
    letter = letter_of(letter_id, record)
    if raw:
        sys.stdout.buffer.write(record.value or b"")
        sys.stdout.buffer.flush()
    elif as_json:
        _json_lines([record_json(letter, record, note)])
    else:
        show_letter(letter, record, note)


async def _notes(log: Log, topic: str) -> dict[LetterId, Note]:
    """What was replayed; notifications are sent again by a command of their own, which the delivery log shows."""
    return await redriven(log) if topic == topics.DEAD_LETTERS else {}


def _json_lines(documents: Iterable[dict[str, Any]]) -> None:
    for document in documents:
        click.echo(orjson.dumps(document).decode())
