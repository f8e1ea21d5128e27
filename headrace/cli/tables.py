"""`headrace tables`: what the agents remember."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
from rich.text import Text

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms, moment
from headrace.cli.opened_log import OpenedLog, load_settings, log_data_option, opened_log
from headrace.cli.own_agents import own_agents
from headrace.cli.running import Mistakes, config_option
from headrace.cli.settings import Settings
from headrace.cli.show_group import ShowGroup
from headrace.engine.changelog import changelog_topic
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.engine.operator import Operator, Readable
from headrace.engine.table_reader import partition_of, table_rows
from headrace.engine.topic_overview import key_counts

#: Rows that are shown unless told otherwise.
LIMIT = 100
#: Columns that hold times, ms.
TIMES = frozenset(
    {"clock", "start", "end", "minute", "time", "watermark", "watermark_at_last_reading"}
    | {"since", "began", "triggered_at", "quiet_until"}
)


class _Kept(NamedTuple):
    """A table, the agent that writes it, and the topic that this one reads."""

    agent: str
    topic: str
    table: Readable


@click.group(cls=ShowGroup)
def tables() -> None:
    """Look into the tables of the agents: windows, baselines, open alerts and what else they remember.

    headrace tables [NAME] is short for headrace tables show [NAME].
    """


@tables.command()
@click.argument("name", required=False)
@click.option("--device", metavar="ID", help="Only what is about this device.")
@click.option("--from", "from_", metavar="TIME", help="Only what starts at TIME or later, ISO 8601 or as 2h (ago).")
@click.option("--to", metavar="TIME", help="Only what starts at TIME or before.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"So many rows; 0 for all. Default: {LIMIT}, with --json all."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; of a table one per line.")
@log_data_option
@config_option
def show(
    name: str | None,
    device: str | None,
    from_: str | None,
    to: str | None,
    limit: int | None,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """List all tables, or show the rows of the table NAME.

    What is shown is what was committed, read from the changelogs. With --device only its partition is read; standard
    error says which worker has that now.
    """
    unfit = name is None and any(option is not None for option in (device, from_, to, limit))
    wrong = Mistakes(["--device, --from, --to and --limit are about rows: name a table"] if unfit else [])
    first, last = _moment(wrong, "--from", from_), _moment(wrong, "--to", to)
    settings = load_settings(wrong, config, data)
    chosen = wrong.take(lambda: _chosen(settings, name)) if settings is not None else None
    wrong.check()
    assert settings is not None
    assert chosen is not None
    if name is None:
        asyncio.run(_list(settings, data, chosen, as_json))
    else:
        most = limit if limit is not None else 0 if as_json else LIMIT
        wanted = _Wanted(device, first, last, most)
        asyncio.run(_show(settings, data, chosen[0], wanted, as_json))


def _moment(wrong: Mistakes, option: str, text: str | None) -> int | None:
    return None if text is None else wrong.take(lambda: moment(option, text, SystemClock().now_ms()))


def _chosen(settings: Settings, name: str | None) -> list[_Kept]:
    """All tables that can be read, or the one of this name.

    Raises:
        ConfigError: there is none.
    """
    agents: list[Operator] = [*build_agents(settings, {}, ()), *(each.operator for each in own_agents(settings))]
    kept = {
        table.name: _Kept(agent.name, agent.topic, table)
        for agent in agents
        for table in agent.tables
        if isinstance(table, Readable)
    }
    if name is None:
        return list(kept.values())
    if name not in kept:
        raise ConfigError(
            f"there is no table {name}; with these settings there are {', '.join(kept)}. --config names the worker's"
        )
    return [kept[name]]


async def _list(settings: Settings, data: Path | None, chosen: list[_Kept], as_json: bool) -> None:
    found = []
    async with opened_log(settings, data) as opened:
        known = {spec.name: spec for spec in await opened.log.topics()}
        for kept in chosen:
            spec = known.get(changelog_topic(GROUP, kept.table.name))
            if spec is not None:
                found.append(
                    {
                        "table": kept.table.name,
                        "agent": kept.agent,
                        "topic": kept.topic,
                        "partitions": spec.partitions,
                        "entries": sum(await key_counts(opened.log, spec)),
                        "changelog": spec.name,
                    }
                )
    if as_json:
        click.echo(orjson.dumps({"tables": found}).decode())
        return
    table = listing("table", "agent", "topic", "partitions", "entries", "changelog", right=("partitions", "entries"))
    for row in found:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()))
    show_listing(table)


class _Wanted(NamedTuple):
    """Which rows: about a device, that start in a range of time (ms), and how many; 0 for all."""

    device: str | None
    first_ms: int | None
    last_ms: int | None
    most: int


async def _show(settings: Settings, data: Path | None, kept: _Kept, wanted: _Wanted, as_json: bool) -> None:
    async with opened_log(settings, data) as opened:
        if changelog_topic(GROUP, kept.table.name) not in {spec.name for spec in await opened.log.topics()}:
            raise ConfigError(f"table {kept.table.name} is not there yet: no worker has run on this log")
        if wanted.device is not None:
            await _say_owner(opened, kept, wanted.device)
        rows = _rows(opened, kept, wanted)
        if not as_json:
            _print([row async for row in rows])
            return
        async for row in rows:
            click.echo(orjson.dumps(row).decode())


async def _rows(opened: OpenedLog, kept: _Kept, wanted: _Wanted) -> AsyncIterator[dict[str, Any]]:
    """The rows of a table; says so if there are more than wanted."""
    number = 0
    async for partition, row in table_rows(
        opened.log, GROUP, kept.table, wanted.device, wanted.first_ms, wanted.last_ms
    ):
        number += 1
        if wanted.most and number > wanted.most:
            click.echo(f"the first {wanted.most}; --limit 0 shows all", err=True)
            return
        yield {"partition": partition, **row}


async def _say_owner(opened: OpenedLog, kept: _Kept, device: str) -> None:
    number = partition_of(opened.log, GROUP, kept.table.name, device)
    owner = opened.worker() or (await opened.log.owners(GROUP)).get(TopicPartition(kept.topic, number))
    click.echo(f"{device} is in partition {number} of {kept.topic}, owner: {owner or 'none'}", err=True)


def _print(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = listing(*columns)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in _cells(row, columns)))
    show_listing(table)


def _cells(row: dict[str, Any], columns: list[str]) -> Iterator[str]:
    for column in columns:
        value = row.get(column)
        if value is None:
            yield ""
        elif column in TIMES:
            yield iso_ms(value)
        else:
            yield value if isinstance(value, str) else orjson.dumps(value).decode()
