"""A turn: the right of one process at a time to do something to a log, kept by a consumer group of its own."""

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass

from headrace.engine.errors import CommitRefused, LogInUse
from headrace.engine.log import Append, Changes, Log, Member, TopicPartition, TopicSpec, Transaction

#: Seconds to wait for the group to give out its one partition: longer than a member that died keeps it.
WAIT = 60.0


@dataclass(slots=True)
class Turn:
    """Held while the `async with` of `take_turn` lasts; `commit` fails once somebody else has it.

    Args:
        topic: compacted topic with one partition, for notes about what was done.
    """

    log: Log
    group: str
    topic: str
    member: Member

    @property
    def notes(self) -> TopicPartition:
        """Where the notes are."""
        return TopicPartition(self.topic, 0)

    async def commit(self, appends: list[Append], notes: dict[bytes, bytes | None]) -> None:
        """Append records, and note that it was done, in one step.

        Raises:
            CommitRefused: the turn is somebody else's now; nothing of it happened.
            LogError: nothing of it happened.
        """
        changes = [Changes(self.notes, notes)] if notes else []
        # The position says nothing; with it the log looks whether the member still has the partition.
        transaction = Transaction(appends, changes, self.group, {self.notes: 0}, self.member)
        try:
            await self.log.commit(transaction)
        except CommitRefused as error:
            raise CommitRefused(f"{error}. Run the same command again: it goes on where it was") from error


class _Listener:
    def __init__(self) -> None:
        self.assigned: asyncio.Future[tuple[Set[TopicPartition], Member]] = asyncio.get_running_loop().create_future()

    async def on_assigned(self, targets: Set[TopicPartition], member: Member) -> None:
        if not self.assigned.done():
            self.assigned.set_result((targets, member))

    async def on_revoked(self) -> None:
        """Nothing to finish: a commit after this is refused."""


def turn_group(name: str) -> str:
    """The consumer group whose only member does `name`."""
    return f"headrace.{name}"


@asynccontextmanager
async def take_turn(log: Log, name: str, topic: str) -> AsyncIterator[Turn]:
    """Be the only one in the group of `name`.

    The embedded log knows no other processes: take a file lock besides.

    Args:
        name: what is done, in letters that a group name may have.
        topic: for notes; made if missing.
    Raises:
        LogInUse: somebody else is doing it.
    """
    await log.create_topics([TopicSpec(topic, 1, compacted=True)])
    group = turn_group(name)
    busy = LogInUse(f"{name} is in hand already. Wait until that is done")
    if await log.owners(group):
        raise busy
    listener = _Listener()
    membership = await log.join(group, [topic], listener)
    try:
        try:
            async with asyncio.timeout(WAIT):
                targets, member = await listener.assigned
        except TimeoutError:
            raise busy from None
        if TopicPartition(topic, 0) not in targets:
            raise busy
        yield Turn(log, group, topic, member)
    finally:
        await membership.leave()
