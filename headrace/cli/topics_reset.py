"""`headrace topics reset`: the plan, the question, the result."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.listing import listing, show_listing
from headrace.cli.moments import moment
from headrace.cli.opened_log import OpenedLog, opened_log
from headrace.cli.own_agents import own_agents
from headrace.cli.running import consoles
from headrace.cli.settings import Settings
from headrace.engine.changelog import changelog_topic
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError, LogInUse
from headrace.engine.log import Log
from headrace.engine.operator import Operator, topics_of
from headrace.engine.topic_reset import Reset, Where, carry_out, plan_reset
from headrace.schemas import topics as names


def where_of(text: str) -> Where:
    """What `--to` says.

    Raises:
        ConfigError: it says nothing that there is.
    """
    for word in ("current", "earliest", "latest"):
        if text == word:
            return word
    return moment("--to", text, SystemClock().now_ms())


#: Where the agents on a topic send to from the same partition, and an intake its copies: partitioned like it.
OUTPUTS = {
    names.RAW: (names.READINGS, names.CONFLICTS, names.RAW_PRIORITY),
    names.RAW_PRIORITY: (names.READINGS_PRIORITY,),
    names.READINGS: (names.ROLLUPS, names.LATE, names.ANOMALIES, names.ALERTS, names.ALERT_STATES),
    names.READINGS_PRIORITY: (names.ALERTS, names.ALERT_STATES),
    names.ALERTS: (names.NOTIFICATION_REQUESTS,),
    names.NOTIFICATION_REQUESTS: (names.OUTBOX, names.NOTIFICATIONS),
}


class TopicsReset:
    """One run of the command.

    Args:
        tables: to empty, for a group that is not headrace's own.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path | None,
        topic: str,
        group: str,
        where: Where,
        tables: tuple[str, ...],
        as_json: bool,
    ) -> None:
        self._settings = settings
        self._data = data
        self._topic = topic
        self._group = group
        self._where = where
        self._tables = tables
        self._as_json = as_json

    async def run(self, *, dry_run: bool, ask: bool) -> None:
        """Plan, ask, reset, report.

        Raises:
            ConfigError: there is nothing of that name, or tables that nobody may decide about but the user.
            LogInUse: a worker of the group runs.
        """
        screen, result = consoles(self._as_json)
        async with opened_log(self._settings, self._data) as opened:
            if dry_run:
                self._show(await self._plan(opened), None, result)
                return
            async with opened.no_worker(self._group):
                plan = await self._plan(opened)
                if ask:
                    self._show_plan(plan, screen)
                    if not click.confirm("reset", err=self._as_json):
                        return
                emptied = await carry_out(opened.log, plan)
            await self._check_nobody_came(opened)
        self._show(plan, emptied, result)

    async def _plan(self, opened: OpenedLog) -> Reset:
        found = {spec.name: spec for spec in await opened.log.topics()}
        if self._topic not in found:
            raise ConfigError(f"there is no topic {self._topic}; `headrace topics` lists them")
        if found[self._topic].compacted:
            raise ConfigError(f"{self._topic} is compacted: no group reads it from a position")
        if self._group == GROUP:
            return await self._plan_of_agents(opened.log, self._topic, self._where)
        self._check_tables(set(found))
        return await plan_reset(opened.log, self._group, self._topic, self._where, self._tables)

    async def _plan_of_agents(
        self, log: Log, topic: str, where: Where, partitions: int | None = None, planned: frozenset[str] = frozenset()
    ) -> Reset:
        """Of all agents. What those that ship send to grows, too; if one of them reads that, it starts over as well.

        Args:
            planned: topics that are in the plan already.
        """
        agents = build_agents(self._settings, {}, ())
        everyone: list[Operator] = [*agents, *(each.operator for each in own_agents(self._settings))]
        tables = {table.name for agent in everyone for table in agent.tables if topic in topics_of(agent)}
        # The ledger adds the counts up over all partitions: they stay true wherever a key is.
        sums = tables & {agents.ingest.counters.name}
        # An agent of several topics needs as many partitions of each.
        together = [name for agent in everyone if topic in topics_of(agent) for name in topics_of(agent)]
        outputs = dict.fromkeys([*OUTPUTS.get(topic, ()), *together])
        plan = await plan_reset(
            log, self._group, topic, where, sorted(tables - sums), sums, outputs=list(outputs), partitions=partitions
        )
        planned |= {topic}
        for growth in plan.grown:
            if growth.topic in OUTPUTS and growth.topic not in planned:
                more = await self._plan_of_agents(log, growth.topic, "current", growth.after, planned)
                planned |= {move.target.topic for move in more.moves}
                plan = plan.and_also(more)
        return plan

    def _check_tables(self, topics: set[str]) -> None:
        """A group of the user's own: which tables belong to the topic, only the user knows."""
        prefix, suffix = changelog_topic(self._group, "|").split("|")
        known = sorted(
            name.removeprefix(prefix).removesuffix(suffix)
            for name in topics
            if name.startswith(prefix) and name.endswith(suffix)
        )
        missing = [name for name in self._tables if name not in known]
        if missing:
            raise ConfigError(
                *(
                    f"--table: group {self._group} has no table {name}; it has {', '.join(known) or 'none'}"
                    for name in missing
                )
            )
        if known and not self._tables:
            raise ConfigError(
                f"group {self._group} has the tables {', '.join(known)}: name those whose agents read {self._topic} "
                "with --table"
            )

    async def _check_nobody_came(self, opened: OpenedLog) -> None:
        """On Kafka nothing keeps a worker from starting meanwhile; its next commit would undo half of this."""
        if opened.folder is None and await opened.log.owners(self._group):
            raise LogInUse(f"a worker of group {self._group} started meanwhile; stop it and run this again")

    # -- showing

    def _show(self, plan: Reset, emptied: int | None, console: Console) -> None:
        if self._as_json:
            click.echo(orjson.dumps(self._document(plan, emptied)).decode())
        elif emptied is None:
            self._show_plan(plan, console)
        else:
            tables = f", {emptied:,} entries of tables deleted" if plan.emptied else ""
            console.print(f"group {self._group} starts over on {self._topic}{tables}", highlight=False)

    def _show_plan(self, plan: Reset, console: Console) -> None:
        table = listing("partition", "position", "will be", "", right=("position", "will be"))
        for move in plan.moves:
            what = f"{abs(move.skipped):,} {'again' if move.skipped < 0 else 'skipped'}" if move.skipped else ""
            name = f"{move.target.topic}/{move.target.partition}"
            table.add_row(name, f"{move.before:,}", f"{move.after:,}", what)
        show_listing(table)
        for growth in plan.grown:
            console.print(f"{growth.topic} gets {growth.after} partitions instead of {growth.before}", highlight=False)
        for name in plan.emptied:
            console.print(f"{name} is emptied", highlight=False)

    def _document(self, plan: Reset, emptied: int | None) -> dict[str, Any]:
        return {
            "group": self._group,
            "topic": self._topic,
            "positions": [{**move.target._asdict(), "before": move.before, "after": move.after} for move in plan.moves],
            "grown": [asdict(growth) for growth in plan.grown],
            "emptied": list(plan.emptied),
            "entries_deleted": emptied,
            "dry_run": emptied is None,
        }
