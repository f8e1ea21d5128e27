"""Copies of changelogs that are kept for when their owner dies, on a real Kafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.changelogs import Changelogs
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.kafka.standbys import Standbys
from headrace.engine.log import Changes, TopicPartition, Transaction
from headrace.engine.metrics import Metrics
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names, numbers
from tests.engine.kafka.admin import allow_deletion, delete_records, make_anew
from tests.engine.kafka.held_log import CALM, HeldLog, connected

pytestmark = pytest.mark.integration
MANY = 1000


class StepClock(SystemClock):
    """Whoever sleeps a second or longer sleeps until the next step."""

    def __init__(self) -> None:
        self._asleep = asyncio.Event()
        self._step = asyncio.Event()

    async def sleep(self, delay: float) -> None:
        if delay < 1:
            await super().sleep(delay)
            return
        self._asleep.set()
        await self._step.wait()

    async def asleep(self) -> None:
        """Wait until everything was read that there was at the last step."""
        async with asyncio.timeout(PATIENCE):
            await self._asleep.wait()

    async def step(self) -> None:
        """Let who sleeps look once."""
        self._asleep.clear()
        self._step.set()
        await asyncio.sleep(0)
        self._step.clear()
        await self.asleep()


class Copies:
    """What a worker keeps for others, and reads when they die."""

    def __init__(self, client: Client, make_client: Callable[[], Awaitable[Client]]) -> None:
        self.clock = StepClock()
        self.metrics = Metrics()
        self.standbys = Standbys(make_client, self.clock, self.metrics)
        self._changelogs = Changelogs(lambda: client, self.standbys, SystemClock(), self.metrics)

    async def take(self, target: TopicPartition) -> tuple[dict[bytes, bytes | None], float]:
        """The entries, and how many records were read from the log for them."""
        before = self._read(target)
        pieces = await self._changelogs.newest(target)
        entries: dict[bytes, bytes | None] = {}
        while (piece := await pieces.read()) is not None:
            entries.update(piece.entries)
        return entries, self._read(target) - before

    def _read(self, target: TopicPartition) -> float:
        return self.metrics.value("headrace_restore_records_total", topic=target.topic)


@pytest.fixture
async def copies(kafka: KafkaServer) -> AsyncIterator[Copies]:
    """None yet."""
    async with connected(kafka.bootstrap) as client, connected(kafka.bootstrap) as own:

        async def make_client() -> Client:
            return own

        copies = Copies(client, make_client)
        yield copies
        await copies.standbys.keep(frozenset())


async def change(log: KafkaLog, target: TopicPartition, entries: dict[bytes, bytes | None]) -> None:
    """Commit, and wait until a copy can see it: a commit is answered before its markers are written."""
    await log.commit(Transaction(changes=[Changes(target, entries)]))
    await log.end_offsets(target.topic)


async def test_only_the_tail_is_read(log: KafkaLog, names: Names, copies: Copies) -> None:
    """A copy that is behind, deletions included, is brought up to date by what it lacks."""
    await change(log, names.s0, dict.fromkeys(numbers(MANY), b"1"))
    await copies.standbys.keep({names.s0})
    await copies.clock.asleep()
    await change(log, names.s0, {b"0": None, b"1": b"2", b"new": b"1"})

    entries, read = await copies.take(names.s0)

    assert entries == {**dict.fromkeys(numbers(MANY - 2, 2), b"1"), b"1": b"2", b"new": b"1"}
    assert read == 3


async def test_copy_follows(log: KafkaLog, names: Names, copies: Copies) -> None:
    """What is committed later is in it after the next look; metrics say how much it is."""
    await copies.standbys.keep({names.s0, names.s1})
    await copies.clock.asleep()
    await change(log, names.s0, dict.fromkeys(numbers(MANY), b"1"))
    await copies.clock.step()

    entries, read = await copies.take(names.s0)

    place: dict[str, str | int] = {"topic": names.state, "partition": 0}
    assert (len(entries), read) == (MANY, 0)
    assert copies.metrics.value("headrace_standby_entries", **place) == MANY
    assert copies.metrics.value("headrace_standby_lag_records", **place) == 0


async def test_open_transaction_holds_up_no_copy(
    kafka: KafkaServer, log: KafkaLog, names: Names, copies: Copies
) -> None:
    """A copy follows up to it, and takes it when it is committed."""
    owner = HeldLog(f"kafka://{kafka.bootstrap}", CALM)
    await owner.start()
    await change(owner, names.s0, {b"a": b"1"})
    owner.gate.shut()
    last = asyncio.create_task(change(owner, names.s0, {b"a": b"2"}))
    await owner.gate.wait_for_somebody()

    await copies.standbys.keep({names.s0})
    await copies.clock.asleep()
    entries = copies.metrics.value("headrace_standby_entries", topic=names.state, partition=0)
    owner.gate.open()
    await last

    assert entries == 1
    assert await copies.take(names.s0) == ({b"a": b"2"}, 1)
    await owner.close()


async def test_topic_that_was_made_anew(kafka: KafkaServer, log: KafkaLog, names: Names, copies: Copies) -> None:
    """Nothing of the old one is left in the copy, though the new one is longer."""
    await change(log, names.s0, {b"old": b"1"})
    await copies.standbys.keep({names.s0})
    await copies.clock.asleep()
    await make_anew(kafka.bootstrap, names.state, 2)
    fresh = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings())
    await fresh.start()
    await change(fresh, names.s0, dict.fromkeys(numbers(MANY), b"1"))
    await fresh.close()

    entries, _ = await copies.take(names.s0)

    assert entries == dict.fromkeys(numbers(MANY), b"1")


async def test_copy_that_is_not_wanted_any_more(log: KafkaLog, names: Names, copies: Copies) -> None:
    """It takes no memory and no metric; the others stay as they are."""
    await change(log, names.s0, {b"a": b"1"})
    await change(log, names.s1, dict.fromkeys(numbers(MANY), b"1"))
    await copies.standbys.keep({names.s0, names.s1})
    await copies.clock.asleep()

    await copies.standbys.keep({names.s1})

    assert copies.metrics.value("headrace_standby_entries", topic=names.state, partition=0) == 0
    assert await copies.take(names.s0) == ({b"a": b"1"}, 1)
    assert (await copies.take(names.s1))[1] == 0


async def test_records_deleted_below_a_copy(kafka: KafkaServer, log: KafkaLog, names: Names, copies: Copies) -> None:
    """A copy whose place was deleted begins again with what is left."""
    await change(log, names.s0, {b"a": b"1"})
    await copies.standbys.keep({names.s0})
    await copies.clock.asleep()
    await change(log, names.s0, {b"b": b"1"})
    end = (await log.end_offsets(names.state))[names.s0]
    await allow_deletion(kafka.bootstrap, names.state)
    await delete_records(kafka.bootstrap, names.s0, end)
    await change(log, names.s0, {b"c": b"1"})
    await copies.clock.step()

    assert (await copies.take(names.s0))[0] == {b"c": b"1"}
    assert await log.first_offset(names.s0) == end
