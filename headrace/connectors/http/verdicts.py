"""What ingest makes of messages that are in the log: it decides elsewhere, so what it writes is watched."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec
import structlog

from headrace.engine.clock import Clock
from headrace.engine.dead_letters import ORIGIN_TOPIC, REASON
from headrace.engine.errors import HeadraceError
from headrace.engine.log import Fetched, Log, Reader, TopicPartition
from headrace.engine.partitioner import Partitioner
from headrace.schemas import topics
from headrace.schemas.conflict import Conflict, decode_conflict

log = structlog.get_logger(__name__)

#: Seconds between two looks, at first and at the most.
POLL, LONGEST_POLL = 0.005, 0.05
#: Records read at a time.
READ = 1_000
#: Seconds before the log is asked again that could not tell.
FAILED_PAUSE = 1.0
_TOPICS = (topics.DEAD_LETTERS, topics.CONFLICTS)


class Verdict(NamedTuple):
    """What became of a message: stored (or known before), in conflict with what was stored, or refused."""

    kind: Literal["stored", "conflict", "refused"]
    reason: str = ""
    conflict: Conflict | None = None


class Watch:
    """Messages somebody waits for, made before their append: what is written after that is seen."""

    def __init__(self, message_ids: Sequence[bytes], device_ids: Sequence[bytes]) -> None:
        self.message_ids = message_ids
        self.device_ids = device_ids
        #: Verdicts so far, by message id.
        self.found: dict[bytes, Verdict] = {}
        self._ends: dict[bytes, tuple[TopicPartition, int]] = {}
        self.all_found: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self, ends: Mapping[TopicPartition, int], partitioner: Partitioner) -> None:
        """They are in the log, before these ends."""
        for message_id, device_id in zip(self.message_ids, self.device_ids, strict=True):
            target = TopicPartition(topics.RAW, partitioner.partition(device_id))
            self._ends[message_id] = target, ends[target]

    def settle(self, positions: Mapping[TopicPartition, int]) -> None:
        """The group is at `positions`, and what it wrote up to there was looked at."""
        passed = [each for each, (target, end) in self._ends.items() if positions.get(target, 0) >= end]
        for message_id in passed:
            del self._ends[message_id]
            self.found.setdefault(message_id, Verdict("stored"))
        if passed and not self._ends and not self.all_found.done():
            self.all_found.set_result(None)

    @property
    def is_expecting(self) -> bool:
        """Whether something of it is not judged."""
        return bool(self._ends)


class Verdicts:
    """Watches `telemetry.dlq`, `telemetry.conflicts` and the positions of the group that ingest is in.

    A commit of the group is one step. So what it wrote about a message is there when its position is behind the
    message; positions are asked for first and topics read after that. Nothing is read while nobody waits.

    Args:
        log: of the messages.
        group: that ingest reads them in.
        clock: for waiting.
    """

    def __init__(self, log: Log, group: str, clock: Clock) -> None:
        self._log = log
        self._group = group
        self._clock = clock
        self._partitioner = Partitioner(log.partitions(topics.RAW))
        self._watches: dict[bytes, Watch] = {}
        self._tails: dict[TopicPartition, int] | None = None
        self._count = 0
        self._wanted = asyncio.Event()
        self._turn = asyncio.Lock()
        # Where the group was when last looked, and when somebody waited in vain: None while it moves.
        self._seen: dict[TopicPartition, int] | None = None
        self._stands_at: dict[TopicPartition, int] | None = None

    @contextmanager
    def watch(self, message_ids: Sequence[bytes], device_ids: Sequence[bytes]) -> Iterator[Watch]:
        """A watch for messages that are not appended yet; call `begin` before they are."""
        watch = Watch(message_ids, device_ids)
        self._count += 1
        self._watches.update(dict.fromkeys(message_ids, watch))
        try:
            yield watch
        finally:
            self._count -= 1
            for message_id in message_ids:
                del self._watches[message_id]

    async def begin(self) -> None:
        """Note where the topics end, unless somebody else watches already."""
        async with self._turn:
            if self._tails is None:
                ends: dict[TopicPartition, int] = {}
                for topic in _TOPICS:
                    ends |= await self._log.end_offsets(topic)
                self._tails = ends

    async def wait(self, watch: Watch, timeout: float, *, is_asked: bool = False) -> None:
        """Wait until all messages of a watch, which are in the log by now, are judged; `timeout` seconds at most.

        Returns at once while the group stands still, as no worker runs, unless the client asked to wait: one may come.
        Whoever cannot be asked says nothing.
        """
        before: dict[TopicPartition, int] | None = None
        try:
            async with asyncio.timeout(timeout):
                watch.expect(await self._log.end_offsets(topics.RAW), self._partitioner)
                before = await self._positions()
                if before == self._stands_at:
                    if not is_asked:
                        return
                else:
                    self._stands_at = None
                self._wanted.set()
                await watch.all_found
        except TimeoutError:
            if before is not None and watch.is_expecting and self._seen == before:
                self._stands_at = before
        except HeadraceError as error:
            log.warning("http_no_verdicts", reason=str(error))

    async def run(self) -> None:
        """Look, while somebody waits. Until cancelled."""
        reader = self._log.reader()
        try:
            while True:
                await self._wanted.wait()
                pause = POLL
                while self._count:
                    try:
                        pause = POLL if await self._look(reader) else min(2 * pause, LONGEST_POLL)
                    except HeadraceError as error:
                        log.warning("http_no_verdicts", reason=str(error))
                        pause = FAILED_PAUSE
                    await self._clock.sleep(pause)
                self._wanted.clear()
                async with self._turn:
                    if not self._count:
                        self._tails = None
        finally:
            await reader.close()

    async def _positions(self) -> dict[TopicPartition, int]:
        return await self._log.positions(self._group, topics.RAW)

    async def _look(self, reader: Reader) -> bool:
        """Whether somebody was told something."""
        watches = {id(each): each for each in self._watches.values() if each.is_expecting}.values()
        if not watches:
            return False
        self._seen = positions = await self._positions()
        if not await self._read(reader):
            return False
        waiting = [each for each in watches if not each.all_found.done()]
        for watch in waiting:
            watch.settle(positions)
        return any(each.all_found.done() for each in waiting)

    async def _read(self, reader: Reader) -> bool:
        """Whether everything was read whose commit has returned: on Kafka it comes when the reader has fetched it."""
        assert self._tails is not None
        is_all = True
        for topic in _TOPICS:
            for target, end in (await self._log.end_offsets(topic)).items():
                while self._tails.get(target, 0) < end:
                    fetched = await reader.read(target, self._tails.get(target, 0), READ)
                    if fetched is None:
                        is_all = False
                        break
                    self._note(fetched)
                    self._tails[target] = fetched.next_offset
        return is_all

    def _note(self, fetched: Fetched) -> None:
        records = fetched.records
        if fetched.target.topic == topics.CONFLICTS:
            for value in records.values:
                try:
                    conflict = decode_conflict(value or b"")
                except msgspec.DecodeError:
                    continue
                said = "another message said otherwise for the same device and time"
                self._found(conflict.message_id.encode(), Verdict("conflict", said, conflict))
            return
        columns = [records.header(name) for name in (topics.MESSAGE_ID, ORIGIN_TOPIC, REASON)]
        for message_id, origin, reason in zip(*columns, strict=True):
            # A reading on which a later agent failed is stored all the same.
            if message_id is not None and origin == topics.RAW.encode():
                self._found(message_id, Verdict("refused", (reason or b"").decode(errors="replace")))

    def _found(self, message_id: bytes, verdict: Verdict) -> None:
        watch = self._watches.get(message_id)
        if watch is not None:
            watch.found[message_id] = verdict
