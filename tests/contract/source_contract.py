"""What every source of messages promises, whatever it speaks. A subclass brings the outside world as `world`.

Messages are pairs of device and payload. A source takes what the world offers, appends it through an `Intake`, and
only then acknowledges: tells the world, in whatever way, that it need not offer it again.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import orjson
import pytest

from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.schemas import topics

Message = tuple[str, bytes]

START_MS = 1_750_000_000_000
#: Seconds that anything may take.
PATIENCE = 120.0


class GatedIntake(Intake):
    """An intake whose appends can be held up before and after they are durable, or fail. A position alone passes."""

    def __init__(self, log: EmbeddedLog) -> None:
        super().__init__(log, ManualClock(START_MS))
        self.log = log
        self.before, self.after, self.entered, self.durable = (asyncio.Event() for _ in range(4))
        self.before.set()
        self.after.set()
        self.fail = False

    async def append(self, device_ids: Sequence[bytes], payloads: Sequence[bytes], **more: Any) -> None:
        """See `Intake.append`."""
        if not payloads:
            await super().append(device_ids, payloads, **more)
            return
        self.entered.set()
        await self.before.wait()
        if self.fail:
            raise LogError("the disk is full")
        await super().append(device_ids, payloads, **more)
        self.durable.set()
        await self.after.wait()


class SourceWorld(ABC):
    """A source with what is outside of it. It is started any number of times, one after the other."""

    #: Whether more can be offered once it has started.
    offers_more = True

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @abstractmethod
    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        """A new source at work until `self.stop` is set; it takes what is offered from now on, or before."""

    @abstractmethod
    async def offer(self, messages: Sequence[Message]) -> None:
        """Offer messages, in this order; returns before they are acknowledged."""

    @abstractmethod
    def taken(self) -> int:
        """How many messages the source has in memory or has appended since it began."""

    async def start(self, intake: Intake, messages: Sequence[Message] = ()) -> None:
        """Start a source, and have these on offer."""
        self.stop = asyncio.Event()
        if messages and not self.offers_more:
            await self.offer(messages)
        self.task = await self.begin(intake)
        if messages and self.offers_more:
            await self.offer(messages)

    async def until_arrived(self, log: EmbeddedLog, count: int) -> None:
        """Wait until so many different messages are in the log."""
        await until_arrived(log, count, self.task)

    async def finish(self) -> None:
        """Stop it as a person does."""
        self.stop.set()
        assert self.task is not None
        async with asyncio.timeout(PATIENCE):
            await self.task

    async def kill(self) -> None:
        """End it as a crash does."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])


class SourceContract:
    """Tests of the promises. At least once: `repeats` says whether a crash may bring a message twice."""

    repeats = True
    #: Bytes of a message, of which what lies between the world and the source holds few.
    large = 20_000

    @pytest.fixture
    async def log(self) -> AsyncIterator[EmbeddedLog]:
        """An empty log."""
        log = EmbeddedLog(MEMORY)
        await log.create_topics(
            [*Intake.topic_specs(4), TopicSpec("devices.presence", 1), TopicSpec("devices.commands", 1)]
        )
        yield log
        await log.close()

    async def test_appended_in_order_per_device(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """Everything arrives once, as it was sent, and in order for each device."""
        messages = made(2_000, 20)
        await world.start(GatedIntake(log), messages)
        await world.until_arrived(log, len(messages))
        await world.finish()

        assert by_device(await arrived(log)) == by_device(messages)

    async def test_what_was_not_durable_comes_again(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """Killed before an append, a source has acknowledged nothing of it: the next one gets it all."""
        messages, intake = made(300, 5), GatedIntake(log)
        intake.before.clear()
        await world.start(intake, messages)
        await intake.entered.wait()
        await world.kill()
        assert await arrived(log) == []

        await world.start(GatedIntake(log))
        await world.until_arrived(log, len(messages))
        await world.finish()
        assert by_device(await arrived(log)) == by_device(messages)

    async def test_killed_between_append_and_acknowledgement(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """Nothing is lost, and the first copies are in order."""
        messages, intake = made(300, 5), GatedIntake(log)
        intake.after.clear()
        await world.start(intake, messages)
        await intake.durable.wait()
        await world.kill()

        await world.start(GatedIntake(log))
        await world.until_arrived(log, len(messages))
        await world.finish()
        found = await arrived(log)
        assert by_device(list(dict.fromkeys(found))) == by_device(messages)
        assert self.repeats or len(found) == len(messages)

    async def test_what_was_acknowledged_never_comes_again(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """A source that was stopped goes on where it was."""
        messages = made(600, 5)
        most = 500 if world.offers_more else 600
        await world.start(GatedIntake(log), messages[:most])
        await world.until_arrived(log, most)
        await world.finish()
        await world.start(GatedIntake(log), messages[most:])
        await world.until_arrived(log, len(messages))
        await world.finish()

        assert by_device(await arrived(log)) == by_device(messages)

    async def test_a_clean_stop_finishes_what_is_in_hand(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """Told to stop in the middle of an append, it waits for that and acknowledges; the next one has no repeats."""
        messages, intake = made(300, 5), GatedIntake(log)
        intake.before.clear()
        await world.start(intake, messages)
        await intake.entered.wait()
        world.stop.set()
        intake.before.set()
        await world.finish()
        await world.start(GatedIntake(log))
        await world.until_arrived(log, len(messages))
        await world.finish()

        assert by_device(await arrived(log)) == by_device(messages)

    async def test_a_log_that_fails(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """The source ends with the error and has acknowledged nothing of it."""
        messages, intake = made(300, 5), GatedIntake(log)
        intake.fail = True
        await world.start(intake, messages)
        assert world.task is not None
        with pytest.raises(LogError, match="disk is full"):
            await asyncio.wait_for(world.task, PATIENCE)

        await world.start(GatedIntake(log))
        await world.until_arrived(log, len(messages))
        await world.finish()
        assert by_device(await arrived(log)) == by_device(messages)

    async def test_back_pressure(self, world: SourceWorld, log: EmbeddedLog) -> None:
        """While the log takes nothing, the source takes no more than a part of what is on offer; then all of it."""
        messages, intake = made(3_000, 5, size=self.large), GatedIntake(log)
        intake.before.clear()
        await world.start(intake, messages)
        await intake.entered.wait()
        seen = -1
        while seen < (seen := world.taken()):
            await asyncio.sleep(0.3)
        assert seen < len(messages) // 2

        intake.before.set()
        await world.until_arrived(log, len(messages))
        await world.finish()
        assert by_device(await arrived(log)) == by_device(messages)


def made(count: int, devices: int, size: int = 0) -> list[Message]:
    """Messages of some devices, in turn, all different."""
    padding = "x" * size
    return [
        (f"d{number % devices}", orjson.dumps({"timestamp": START_MS + number, "seq": number, "pad": padding}))
        for number in range(count)
    ]


def by_device(messages: Sequence[Message]) -> dict[str, list[int]]:
    """Sequence numbers per device, in order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for device, payload in messages:
        found[device].append(orjson.loads(payload)["seq"])
    return dict(found)


async def arrived(log: EmbeddedLog) -> list[Message]:
    """Every raw message in the log, partition by partition."""
    found: list[Message] = []
    for target, end in (await log.end_offsets(topics.RAW)).items():
        offset = 0
        while offset < end:
            fetched = await log.read(TopicPartition(*target), offset, 1_000)
            assert fetched is not None
            found += [
                ((key or b"").decode(), value or b"")
                for key, value in zip(fetched.records.keys, fetched.records.values, strict=True)
            ]
            offset = fetched.next_offset
    return found


async def until_arrived(log: EmbeddedLog, count: int, source: "asyncio.Task[None] | None" = None) -> None:
    """Wait until so many different messages are in the log, or raise what the source ended with."""
    async with asyncio.timeout(PATIENCE):
        while sum((await log.end_offsets(topics.RAW)).values()) < count or len(set(await arrived(log))) < count:
            if source is not None and source.done():
                source.result()
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
