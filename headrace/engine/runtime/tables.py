"""Faust's table manager, restoring headrace's own tables in bulk before the first batch."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from faust.tables.manager import TableManager
from faust.types.tuples import TP

from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec
from headrace.engine.operator import State


def changelog_topic(group: str, table: str) -> str:
    """Name of the compacted topic that `table` of `group` is kept in."""
    return f"{group}-{table}-changelog"


class BatchTableManager(TableManager):
    """Keeps the `State`s of all agents: restores them on assignment, collects their changes for a commit.

    Faust's own waits 1 s at the start and recovers event by event through the conductor, swallowing errors. Here an
    error while restoring crashes the app.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._states: dict[str, list[State]] = {}
        self._restored = asyncio.Event()

    def register(self, topic: str, states: Iterable[State]) -> None:
        """These tables are written by an agent that reads `topic`."""
        self._states.setdefault(topic, []).extend(states)

    def topic_specs(self, partitions: int) -> list[TopicSpec]:
        """The changelogs, partitioned like the topics whose agents write them."""
        return [
            TopicSpec(changelog_topic(self.app.conf.id, state.name), partitions, compacted=True)
            for states in self._states.values()
            for state in states
        ]

    def changes(self, target: TopicPartition) -> list[Changes]:
        """What finished batches of `target` changed since the last call."""
        found = []
        for state in self._states.get(target.topic, ()):
            entries = state.changes(target.partition)
            if entries:
                changelog = changelog_topic(self.app.conf.id, state.name)
                found.append(Changes(TopicPartition(changelog, target.partition), entries))
        return found

    async def on_start(self) -> None:
        self._tables_finalized.set()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        await cast(Any, self.app)._fetcher.stop()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        log: Log = cast(Any, self.app).record_log
        for tp in revoked:
            for state in self._states.get(tp.topic, ()):
                state.forget(tp.partition)
        for tp in sorted(newly_assigned):
            for state in self._states.get(tp.topic, ()):
                target = TopicPartition(changelog_topic(self.app.conf.id, state.name), tp.partition)
                async for entries in log.restore(target):
                    state.restore(tp.partition, entries)
                state.restored(tp.partition)
        self._restored.set()
        app = cast(Any, self.app)
        app.flow_control.resume()
        await app._fetcher.maybe_start()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing to suspend: state is dropped when the next assignment says so."""

    async def wait_until_recovery_completed(self) -> bool:
        return await self.wait_for_stopped(cast(Any, self._restored))
