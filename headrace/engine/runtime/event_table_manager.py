"""Keeps Faust's tables beside headrace's own."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from faust.types.tables import CollectionT

from headrace.engine.changelog import changelog_topic
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log, TopicPartition, TopicSpec
from headrace.engine.runtime.event_tables import EventTable
from headrace.engine.runtime.tables import BatchTableManager


class EventTableManager(BatchTableManager):
    """A Faust table is a `State` of every topic that is read event by event and has as many partitions.

    Which agents write it is not known before they do, so partition 3 of a table goes with partition 3 of all of them.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._recovered = asyncio.Event()

    def add(self, table: CollectionT) -> CollectionT:
        if not isinstance(table, EventTable) or table.is_global:
            raise ConfigError(f"table {table.name}: there is no {type(table).__name__} here, only Table")
        if table.use_partitioner:
            raise ConfigError(f"table {table.name}: use_partitioner has no effect here; group_by the key first")
        store = table._store if table._store is not None else self.app.conf.store
        if store.scheme != "memory":
            raise ConfigError(f"table {table.name}: tables are kept in memory and in their changelog; leave out store")
        if table.changelog_topic_name != changelog_topic(self.app.conf.id, table.name):
            raise ConfigError(f"table {table.name}: the changelog has a name of its own; leave out changelog_topic")
        return super().add(table)

    async def prepare(self, topics: Iterable[str]) -> None:
        """Make changelogs and start the tables; `topics` are those that are read event by event, and exist."""
        log: Log = cast(Any, self.app).record_log
        try:
            partitions = {topic: log.partitions(topic) for topic in topics}
        except KeyError as missing:
            raise ConfigError(f"there is no topic {missing}, and topic_allow_declare is off; create it") from None
        tables = [cast(EventTable, table) for table in self.values()]
        await log.create_topics([self._spec(table, set(partitions.values())) for table in tables])
        for table in tables:
            kept = log.partitions(table.changelog_topic_name)
            for topic in sorted(partitions):
                state = table.state_for(topic)
                if partitions[topic] == kept and state not in self._states.get(topic, ()):
                    self.register(topic, [state])
            await table.maybe_start()

    def coupled(self, target: TopicPartition) -> set[TopicPartition]:
        return {
            *super().coupled(target),
            *(
                TopicPartition(topic, target.partition)
                for table in self.values()
                for topic in cast(EventTable, table).writers
                if target.topic in cast(EventTable, table).writers
            ),
        }

    async def on_restored(self) -> None:
        await super().on_restored()
        self.on_actives_ready()
        self.on_standbys_ready()
        for table in self.values():
            await table.call_recover_callbacks()
        self._recovered.set()
        await cast(Any, self.app).on_rebalance_complete.send()

    async def on_stop(self) -> None:
        await super().on_stop()
        for table in self.values():
            await table.stop()

    async def wait_until_recovery_completed(self) -> bool:
        if self.app.client_only or self.app.producer_only:
            return False
        return await self.wait_for_stopped(cast(Any, self._recovered))

    def _spec(self, table: EventTable, counts: set[int]) -> TopicSpec:
        """With as many partitions as the topics have, if they agree."""
        partitions = table.partitions or (next(iter(counts)) if len(counts) == 1 else self.app.conf.topic_partitions)
        return TopicSpec(table.changelog_topic_name, partitions, compacted=True)
