"""`headrace tables`: what the agents remember."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
from rich.text import Text

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.cli.opened_log import OpenedLog, log_data_option, log_folder, opened_log
from headrace.cli.running import Setup, config_option, json_option, set_up
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.engine.operator import Readable
from headrace.engine.runtime.tables import changelog_topic
from headrace.engine.table_reader import partition_of, table_rows

#: Rows that are shown unless told otherwise.
LIMIT = 100
#: Columns that hold times, ms.
TIMES = frozenset(
    {"clock", "start", "end", "minute", "time", "watermark", "watermark_at_last_reading"}
    | {"since", "triggered_at", "quiet_until"}
)


class _Kept(NamedTuple):
    """A table, the agent that writes it, and the topic that this one reads."""

    agent: str
    topic: str
    table: Readable


@click.group(invoke_without_command=True)
@log_data_option
@config_option
@json_option
@click.pass_context
def tables(context: click.Context, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Look into the tables of the agents: windows, baselines, open alerts and what else they remember.

    Without a command: list them. What is shown is what was committed, read from the changelogs.
    """
    if context.invoked_subcommand is None:
        setup = _set_up(config, data)
        asyncio.run(_list(setup, data, as_json))
    elif data is not None or config is not None or as_json:
        raise click.UsageError(f"give the options behind the command: headrace tables {context.invoked_subcommand} …")


@tables.command()
@click.argument("name")
@click.option("--device", metavar="ID", help="Only what is about this device.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"So many rows; 0 for all. Default: {LIMIT}, with --json all."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def show(
    name: str, device: str | None, limit: int | None, as_json: bool, data: Path | None, config: Path | None
) -> None:
    """Show the rows of the table NAME.

    With --device only its partition is read; standard error says which worker has that now.
    """
    setup = _set_up(config, data)
    asyncio.run(_show(setup, data, name, device, limit, as_json))


def _set_up(config: Path | None, data: Path | None) -> Setup:
    setup = set_up(config)
    log_folder(setup.settings, data)
    return setup


def _kept(setup: Setup) -> dict[str, _Kept]:
    agents = build_agents(setup.settings, setup.device_types, setup.rules)
    return {
        table.name: _Kept(agent.name, agent.topic, table)
        for agent in agents
        for table in agent.tables
        if isinstance(table, Readable)
    }


async def _list(setup: Setup, data: Path | None, as_json: bool) -> None:
    found = []
    async with opened_log(setup.settings, data) as opened:
        known = {spec.name: spec for spec in await opened.log.topics()}
        for name, kept in _kept(setup).items():
            spec = known.get(changelog_topic(GROUP, name))
            if spec is not None:
                count = await _count(opened, spec.name, spec.partitions)
                found.append(
                    {
                        "table": name,
                        "agent": kept.agent,
                        "topic": kept.topic,
                        "partitions": spec.partitions,
                        "entries": count,
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


async def _count(opened: OpenedLog, changelog: str, partitions: int) -> int:
    return sum(
        [
            len(part)
            for number in range(partitions)
            async for part in opened.log.restore(TopicPartition(changelog, number))
        ]
    )


async def _show(
    setup: Setup, data: Path | None, name: str, device: str | None, limit: int | None, as_json: bool
) -> None:
    kept = _kept(setup)
    if name not in kept:
        raise ConfigError(f"there is no table {name}; there are {', '.join(kept)}")
    most = limit if limit is not None else 0 if as_json else LIMIT
    rows: list[dict[str, Any]] = []
    async with opened_log(setup.settings, data) as opened:
        if changelog_topic(GROUP, name) not in {spec.name for spec in await opened.log.topics()}:
            raise ConfigError(f"table {name} is not there yet: no worker has run on this log")
        if device is not None:
            await _say_owner(opened, kept[name], device)
        async for partition, row in table_rows(opened.log, GROUP, kept[name].table, device):
            if most and len(rows) == most:
                click.echo(f"the first {most}; --limit 0 shows all", err=True)
                break
            rows.append({"partition": partition, **row})
            if as_json:
                click.echo(orjson.dumps(rows[-1]).decode())
    if not as_json:
        _print(rows)


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
