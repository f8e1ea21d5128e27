"""`headrace topics`: what is in the log, who reads it and how far behind; and starting a group over."""

import asyncio
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import click

from headrace.cli.agents import GROUP
from headrace.cli.opened_log import OpenedLog, load_settings, log_data_option, opened_log
from headrace.cli.own_agents import own_agents
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.cli.show_group import ShowGroup
from headrace.cli.topics_reset import TopicsReset, where_of
from headrace.cli.topics_tail import newest_records, show_records
from headrace.cli.topics_view import show_partitions, show_topics
from headrace.connectors.timescale.sink import TimescaleSink
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.engine.operator import topics_of
from headrace.engine.topic_overview import overview
from headrace.schemas import topics as names

#: Group of the sink, and what it reads.
SINK = "timescale"
#: By group that ships, the topics that it reads.
READERS: Mapping[str, Collection[str]] = {
    GROUP: (names.RAW, names.RAW_PRIORITY, names.READINGS, names.READINGS_PRIORITY),
    SINK: TimescaleSink.topics,
}


@click.group(cls=ShowGroup)
def topics() -> None:
    """Look at topics: partitions, records, lag, owners; start a group over.

    headrace topics [NAME] is short for headrace topics show [NAME].
    """


@topics.command()
@click.argument("name", required=False)
@click.option("--group", metavar="GROUP", help="Only this consumer group. Default: those of agents and sink.")
@log_data_option
@config_option
@json_option
def show(name: str | None, group: str | None, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show all topics, or the partitions of the topic NAME.

    Lag is the number of records that a consumer group has still to read; the owner is the worker that reads a partition
    for the group. Compacted topics hold the newest value of each key.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None
    asyncio.run(_show(settings, data, name, group, as_json))


@topics.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="So many records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def tail(name: str, limit: int, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the newest records of the topic NAME, the newest last, with their append times."""
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None
    asyncio.run(_tail(settings, data, name, limit, as_json))


@topics.command()
@click.argument("topic")
@click.option("--group", default=GROUP, show_default=True, help="Consumer group to start over.")
@click.option(
    "--to",
    "to",
    metavar="current|earliest|latest|TIME",
    default="current",
    show_default=True,
    help="Where it reads on; TIME is ISO 8601, or a time ago such as 2h.",
)
@click.option("--table", "tables", metavar="NAME", multiple=True, help="For a group of your own: a table to empty.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@log_data_option
@config_option
@json_option
def reset(
    topic: str,
    group: str,
    to: str,
    tables: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Start GROUP over on TOPIC: set its positions, and empty the tables of its agents that read TOPIC.

    For a worker that stopped because TOPIC has got partitions, or was deleted and made again: keys are in other
    partitions now, and what tables know of them is not. Tables get as many partitions as TOPIC. `current` leaves
    positions where they are; a partition that is new, or whose position the log does not have, begins at its oldest
    record. No worker of GROUP may run. See docs/guides/replay-the-log.md.
    """
    unfit = not (yes or dry_run or sys.stdin.isatty())
    wrong = Mistakes(["nobody can be asked here: give --yes, or --dry-run"] if unfit else [])
    settings = load_settings(wrong, config, data)
    where = wrong.take(lambda: where_of(to))
    readers = wrong.take(lambda: _readers(settings)) if settings is not None else None
    if readers is not None:
        wrong.take(lambda: _check_group(topic, group, to, tables, readers[GROUP]))
    wrong.check()
    assert settings is not None
    assert where is not None
    command = TopicsReset(settings, data, topic, group, where, tables, as_json)
    asyncio.run(command.run(dry_run=dry_run, ask=not yes))


def _readers(settings: Settings) -> dict[str, Collection[str]]:
    """By group, the topics that it reads: as `READERS`, and those of agents of the user's own."""
    own = [topic for each in own_agents(settings) for topic in topics_of(each.operator)]
    return {**READERS, GROUP: list(dict.fromkeys([*READERS[GROUP], *own]))}


def _check_group(topic: str, group: str, to: str, tables: tuple[str, ...], reads: Collection[str]) -> None:
    """What cannot be right, whatever is in the log.

    Args:
        reads: the topics that headrace's own group reads.
    Raises:
        ConfigError: every mistake.
    """
    mistakes = []
    if group == SINK:
        mistakes.append(
            f"--group: the sink {SINK} keeps its positions in its database, and goes by these; "
            "see docs/guides/replay-the-log.md"
        )
    if group == GROUP and topic not in reads:
        mistakes.append(f"{topic}: group {GROUP} does not read it; it reads {', '.join(reads)}")
    if group == GROUP and tables:
        mistakes.append(f"--table: the tables of group {GROUP} are known; leave it out")
    if group == GROUP and topic == names.RAW and to != "current":
        mistakes.append(
            f"--to: only current for {names.RAW}. Messages that are read again would be counted again by agents and "
            "ledger, and those that are skipped would be lost"
        )
    if mistakes:
        raise ConfigError(*mistakes)


async def _tail(settings: Settings, data: Path | None, name: str, limit: int, as_json: bool) -> None:
    async with opened_log(settings, data) as opened:
        await _known(opened, name)
        show_records(await newest_records(opened.log, name, limit), as_json=as_json)


async def _known(opened: OpenedLog, name: str) -> None:
    known = {spec.name for spec in await opened.log.topics()}
    if name not in known:
        raise ConfigError(f"there is no topic {name}; there are {', '.join(sorted(known))}")


async def _show(settings: Settings, data: Path | None, name: str | None, group: str | None, as_json: bool) -> None:
    async with opened_log(settings, data) as opened:
        if name is not None:
            await _known(opened, name)
        known = _readers(settings)
        readers = known if group is None else {group: known.get(group)}
        owners = {each: await _owners(opened, each, known) for each in readers}
        views = await overview(opened.log, None if name is None else {name}, readers, owners)
        if name is None:
            show_topics(views, list(readers), as_json=as_json)
        else:
            await show_partitions(opened.log, views[0], as_json=as_json)


async def _owners(opened: OpenedLog, group: str, readers: Mapping[str, Collection[str]]) -> dict[TopicPartition, str]:
    """Who has which partition for a group; on the embedded log the worker of the folder has all."""
    worker = opened.worker()
    if worker is None:
        return await opened.log.owners(group)
    return {target: worker for topic in readers.get(group, ()) for target in await opened.log.end_offsets(topic)}
