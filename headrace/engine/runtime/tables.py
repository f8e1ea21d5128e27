"""Faust's table manager, restoring headrace's own tables in bulk before the first batch."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from typing import Any, cast

from faust.tables.manager import TableManager
from faust.types.tuples import TP

from headrace.engine.changelog import changelog_topic
from headrace.engine.errors import TableUnreadable
from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec
from headrace.engine.operator import OnDisk, State, Stored
from headrace.engine.runtime.restoring import restore_table


class BatchTableManager(TableManager):
    """Keeps the `State`s of all agents: restores them on assignment, collects their changes for a commit.

    Faust's own waits 1 s at the start and recovers event by event through the conductor, swallowing errors. Here an
    error while restoring crashes the app.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._states: dict[str, list[State]] = {}
        #: By topic those whose partitions are committed together, itself included.
        self._coupled: dict[str, set[str]] = {}
        #: By topic those whose agents write some of the same tables, itself included.
        self._sharing_topics: dict[str, set[str]] = {}
        self._restored_partitions: set[TopicPartition] = set()
        self._problems: dict[TopicPartition, str] = {}
        #: What migrated tables still have to write, by changelog.
        self._migrated: dict[TopicPartition, dict[bytes, bytes | None]] = {}
        self._restored = asyncio.Event()

    def register(self, topic: str, states: Iterable[State]) -> None:
        """These tables are written by an agent that reads `topic`."""
        self._states.setdefault(topic, []).extend(states)
        self._sharing_topics.clear()

    def couple(self, topics: Sequence[str]) -> None:
        """One operator reads these, and may write its tables with each."""
        if len(topics) > 1:
            joined = set(topics).union(*(self._coupled.get(topic, ()) for topic in topics))
            self._coupled.update(dict.fromkeys(joined, joined))

    def topic_specs(self, partitions: int) -> list[TopicSpec]:
        """The changelogs, partitioned like the topics whose agents write them."""
        names = dict.fromkeys(state.name for states in self._states.values() for state in states)
        return [TopicSpec(changelog_topic(self.app.conf.id, name), partitions, compacted=True) for name in names]

    def changes(self, target: TopicPartition) -> list[Changes]:
        """What finished batches of `target` changed since the last call."""
        found = []
        for state in self._states.get(target.topic, ()):
            changelog = self._changelog(state, target)
            entries = state.changes(target.partition)
            if changelog in self._migrated:
                entries = {**self._migrated.pop(changelog), **entries}
            if entries:
                found.append(Changes(changelog, entries))
        return found

    def committed(self, positions: Mapping[TopicPartition, int]) -> None:
        """A commit is durable; what `changes` gave for it ends at these positions of changelogs."""
        for states in self._states.values():
            for state in states:
                if isinstance(state, Stored):
                    name = changelog_topic(self.app.conf.id, state.name)
                    for changelog in positions:
                        if changelog.topic == name:
                            state.committed(changelog.partition, positions[changelog])

    def coupled(self, target: TopicPartition) -> Set[TopicPartition]:
        """Partitions that write the same tables as `target`: one may not be committed while another is half-way."""
        return {TopicPartition(topic, target.partition) for topic in self._coupled.get(target.topic, ())}

    def drop(self, targets: Iterable[TopicPartition]) -> None:
        """State of these partitions is not what the log says: the next assignment restores it."""
        for target in targets:
            for state in self._states.get(target.topic, ()):
                state.forget(target.partition)
                self._migrated.pop(self._changelog(state, target), None)
            self._restored_partitions -= {target, *self._sharing(target, self._restored_partitions)}

    def _sharing(self, target: TopicPartition, among: Set[TopicPartition]) -> set[TopicPartition]:
        """Those partitions whose tables are, in part, those of `target`."""
        topics = self._sharing_topics.get(target.topic)
        if topics is None:
            names = {state.name for state in self._states.get(target.topic, ())}
            topics = {topic for topic, states in self._states.items() if any(state.name in names for state in states)}
            self._sharing_topics[target.topic] = topics
        return {each for topic in topics if (each := TopicPartition(topic, target.partition)) in among}

    def is_restored(self, target: TopicPartition) -> bool:
        """Whether the tables of a partition are what their changelogs say."""
        return target in self._restored_partitions

    def problem(self, target: TopicPartition) -> str | None:
        """Why the tables of a partition cannot be kept, or None."""
        return self._problems.get(target)

    async def on_start(self) -> None:
        self._tables_finalized.set()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        await cast(Any, self.app)._fetcher.stop()
        for states in self._states.values():
            for state in states:
                if isinstance(state, Stored):
                    state.close()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        targets = {TopicPartition(*tp) for tp in assigned}
        self.drop(self._restored_partitions - targets)
        mismatches = {topic: self._mismatch(topic) for topic in {target.topic for target in targets}}
        self._problems = {target: why for target in targets if (why := mismatches[target.topic])}
        app = cast(Any, self.app)
        app.flow_control.resume()
        await app._fetcher.maybe_start()

    async def restore(self, targets: Set[TopicPartition], first: Set[TopicPartition]) -> AsyncIterator[TopicPartition]:
        """Restore what is not restored yet, one partition after the other; gives each as soon as it may be worked on.

        Those that cannot be, see `problem`, are given too.

        Args:
            first: to be restored before others, as they are fast.
        """
        waiting = set(targets)
        missing = sorted(targets - self._restored_partitions - self._problems.keys())
        for target in [None, *sorted(missing, key=lambda each: each not in first)]:
            if target is not None:
                await self._restore(target)
            for settled in sorted(each for each in waiting if self._settled(each, targets)):
                waiting.discard(settled)
                yield settled

    def _settled(self, target: TopicPartition, targets: Set[TopicPartition]) -> bool:
        """Whether no restore will touch the tables of `target` any more."""
        done = self._restored_partitions | self._problems.keys()
        return done.issuperset({target, *self._sharing(target, targets)})

    async def on_restored(self) -> None:
        """Every partition is restored."""
        self._restored.set()

    def changelogs(self, targets: Iterable[TopicPartition]) -> set[TopicPartition]:
        """The changelogs of all tables of these partitions that fit into memory."""
        return {
            self._changelog(state, target)
            for target in targets
            for state in self._states.get(target.topic, ())
            if not (isinstance(state, OnDisk) and state.on_disk)
        }

    async def _restore(self, target: TopicPartition) -> None:
        """All tables of one partition; interrupted half-way, they are restored from scratch the next time."""
        log: Log = cast(Any, self.app).record_log
        # Their tables are dropped here, and restored with those of `target`.
        sharing = self._sharing(target, self._restored_partitions)
        self.drop([target])
        for state in self._states.get(target.topic, ()):
            changelog = self._changelog(state, target)
            try:
                migrated = await restore_table(log, changelog, state, self._way_out(target.topic))
            except TableUnreadable as error:
                self._problems |= dict.fromkeys([target, *sharing], str(error))
                return
            if migrated:
                self._migrated[changelog] = migrated
        self._restored_partitions |= {target, *sharing}

    def _changelog(self, state: State, target: TopicPartition) -> TopicPartition:
        return TopicPartition(changelog_topic(self.app.conf.id, state.name), target.partition)

    def _mismatch(self, topic: str) -> str | None:
        """A table is partitioned like its topic: with another number of partitions its keys are elsewhere."""
        log: Log = cast(Any, self.app).record_log
        group, partitions = self.app.conf.id, log.partitions(topic)
        for state in self._states.get(topic, ()):
            kept = log.partitions(changelog_topic(group, state.name))
            if kept != partitions:
                return (
                    f"topic {topic} has {partitions} partitions, but table {state.name} of its agents has {kept}: "
                    f"keys have moved. {self._way_out(topic)}"
                )
        return None

    def _way_out(self, topic: str) -> str:
        return f"`headrace topics reset {topic} --group {self.app.conf.id}` starts the tables over"

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing to suspend: state is dropped when the next assignment says so."""

    async def wait_until_recovery_completed(self) -> bool:
        return await self.wait_for_stopped(cast(Any, self._restored))
