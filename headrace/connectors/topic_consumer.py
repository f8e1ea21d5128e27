"""Reads a topic for a consumer group, record by record; positions are committed after the work."""

import asyncio
from collections.abc import AsyncGenerator, Set
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, HeadraceError
from headrace.engine.log import Fetched, Log, Member, Membership, TopicPartition, Transaction
from headrace.engine.records import Record

#: Records of one read, and seconds between two looks around.
MOST_READ, POLL = 500, 1.0
#: Seconds that a position waits at most, while there is more to read.
COMMIT_EVERY = 1.0
#: Seconds that the last commit gets: who stops while a broker is away has some records again.
LAST_COMMIT = 5.0

logger = structlog.get_logger(__name__)


class TopicConsumer:
    """A member of a consumer group, for as long as the `async with` lasts; on the embedded log its only one.

    A record is finished when the next one is asked for. Its position is committed soon after: when there is nothing
    more to read, when `COMMIT_EVERY` has passed, before partitions go to another member, and at the end. So each record
    comes at least once, those of a partition in order. A group that never committed begins with the oldest record.

    Args:
        log: where the topic is.
        topic: its name; it exists.
        group: name of the group.
        clock: says when to commit.
    """

    def __init__(self, log: Log, topic: str, group: str, clock: Clock) -> None:
        self._log = log
        self._topic = topic
        self._group = group
        self._clock = clock
        self._reader = log.reader()
        self._targets: list[TopicPartition] = []
        self._member = Member()
        self._assigned = asyncio.Event()
        #: Grows whenever partitions are given or taken.
        self._number = 0
        #: Per partition what is behind the last finished record, and what of that is committed.
        self._finished: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committed_at = clock.monotonic()
        self._membership: Membership | None = None
        self._lost: asyncio.Task[HeadraceError] | None = None

    async def __aenter__(self) -> Self:
        self._membership = await self._log.join(self._group, [self._topic], self)
        self._lost = asyncio.create_task(self._membership.wait_lost())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_COMMIT):
                    await self._commit()
        finally:
            await cancel_and_wait(self._lost)
            assert self._membership is not None
            await self._membership.leave()
            await self._reader.close()

    async def records(self) -> AsyncGenerator[Record, None]:
        """The records of the partitions that the member has, for ever.

        Raises:
            LogError: the log failed.
            HeadraceError: the group takes this member no more; says why.
        """
        while True:
            fetched = await self._fetch()
            number = self._number
            for place, record in enumerate(fetched.records):
                yield record
                self._finish(fetched.target, fetched.offset(place) + 1)
                if self._number != number:
                    break  # given out anew: whoever has the partition reads on
                if self._clock.monotonic() - self._committed_at > COMMIT_EVERY:
                    await self._commit()
            else:
                self._finish(fetched.target, fetched.next_offset)

    async def on_assigned(self, targets: Set[TopicPartition], member: Member) -> None:
        """See `headrace.engine.log.Listener`."""
        self._committed = await self._log.positions(self._group, self._topic) if targets else {}
        # A position that could not be committed while nobody had the partition is further on.
        self._finished = {
            target: max(self._committed.get(target, 0), self._finished.get(target, 0)) for target in targets
        }
        self._targets, self._member = sorted(targets), member
        self._number += 1
        self._assigned.set()

    async def on_revoked(self) -> None:
        """Commit what is finished; the record in hand is not."""
        await self._commit()
        self._number += 1
        self._assigned.clear()
        self._reader.forget(self._targets)
        self._targets = []

    def _finish(self, target: TopicPartition, position: int) -> None:
        if target in self._finished:
            self._finished[target] = max(self._finished[target], position)

    async def _fetch(self) -> Fetched:
        """The next records of some partition; commits before it waits."""
        while True:
            assert self._lost is not None
            if self._lost.done():
                raise self._lost.result()
            for target in self._targets:
                fetched = await self._reader.read(target, self._finished[target], MOST_READ)
                if target not in self._targets:
                    break  # taken away meanwhile
                if fetched is not None:
                    # Its turn comes again after that of the others.
                    self._targets = [each for each in self._targets if each != target]
                    self._targets.append(target)
                    return fetched
            await self._commit()
            if self._targets:
                await self._reader.wait({target: self._finished[target] for target in self._targets}, POLL)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._assigned.wait()

    async def _commit(self) -> None:
        self._committed_at = self._clock.monotonic()
        moved = {
            target: self._finished[target]
            for target in self._targets
            if self._finished[target] != self._committed.get(target, 0)
        }
        if not moved:
            return
        try:
            await self._log.commit(Transaction(group=self._group, positions=moved, member=self._member))
        except CommitRefused as error:
            # The partitions are on their way to another member, or back to this one: then it knows them still.
            logger.debug("position_refused", group=self._group, error=str(error))
        else:
            self._committed |= moved
