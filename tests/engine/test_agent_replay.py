"""Replaying an agent, on the embedded log in memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.agent_replay import REPLAYS, AgentReplay, Outcome
from headrace.engine.batch import Batch
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import AgentStopped, BadRecord, CutBatch, LogError
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.operator import State
from headrace.engine.records import Records
from headrace.engine.replay_stretches import stretches
from headrace.engine.turn import Turn, take_turn

TOPIC, OUT, GROUP = "numbers", "sums", "live"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


class Sums(State):
    """A table of one number per partition."""

    name = "sums"

    def __init__(self) -> None:
        self.by_partition: dict[int, int] = {}

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        raise AssertionError("a replay begins with empty tables")

    def restored(self, partition: int) -> None:
        raise AssertionError("a replay begins with empty tables")

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        return {b"sum": b"%d" % self.by_partition.get(partition, 0)}

    def forget(self, partition: int) -> None:
        self.by_partition.pop(partition, None)


class Summing:
    """Sends the running sum of its partition with every even number; what is no number it cannot take."""

    name = "summing"
    topic = TOPIC

    def __init__(self) -> None:
        self.table = Sums()
        self.tables = (self.table,)

    def process(self, batch: Batch) -> None:
        total = self.table.by_partition.get(batch.partition, 0)
        for row, record in enumerate(batch):
            if record.value == b"bad":
                raise BadRecord(row, "bad")
            number = int(record.value or b"")
            total += number
            if number % 2 == 0:
                batch.send(OUT, record.key or b"", b"%d" % total, row=row)
        batch.on_finish(lambda: self.table.by_partition.__setitem__(batch.partition, total))


class CuttingSumming(Summing):
    """Wants every record in a batch of its own."""

    def process(self, batch: Batch) -> None:
        if len(batch) > 1:
            raise CutBatch(1)
        super().process(batch)


class Impatient(SystemClock):
    """So fast that every batch is committed."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 10
        return self._now


class WatchedTurn(Turn):
    """A turn that calls `on_commit` before each commit; what that raises is the end of the process."""

    async def commit(self, appends: list[Append], notes: dict[bytes, bytes | None]) -> None:
        await self.on_commit()
        await super().commit(appends, notes)

    async def on_commit(self) -> None:
        """Nothing, unless a test says otherwise."""


async def new_log(partitions: int = 1) -> EmbeddedLog:
    log = EmbeddedLog(MEMORY, retention=1e9)
    await log.create_topics([TopicSpec(TOPIC, partitions), TopicSpec(OUT, 1)])
    return log


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with one partition of numbers."""
    log = await new_log()
    yield log
    await log.close()


async def append(log: EmbeddedLog, numbers: Iterable[int | bytes], target: TopicPartition = P0) -> None:
    """Each in an append of its own, at 1000 ms × its offset; the live agents have read all of it."""
    for number in numbers:
        value = number if isinstance(number, bytes) else b"%d" % number
        offset = (await log.end_offsets(TOPIC))[target]
        key = b"%d" % target.partition
        await log.commit(
            Transaction(
                [Append(target, Records([key], [value], [1000 * offset]))], group=GROUP, positions={target: offset + 1}
            )
        )


async def replay(
    log: EmbeddedLog,
    *,
    from_ms: int = 0,
    to_ms: int | None = None,
    warm_up_ms: int | None = None,
    turn_type: type[Turn] = Turn,
    stop: asyncio.Event | None = None,
    batch: int = 1,
    agent: type[Summing] = Summing,
) -> Outcome:
    plan = await stretches(log, TOPIC, GROUP, from_ms, to_ms, warm_up_ms)
    async with take_turn(log, "test", REPLAYS) as turn:
        mine = turn_type(turn.log, turn.group, turn.topic, turn.member)
        work = AgentReplay(mine, Impatient(), agent(), "test", GROUP, plan, to_ms, batch)
        await work.run(stop or asyncio.Event())
    return work.outcome


async def sent(log: EmbeddedLog) -> list[int]:
    """The sums that were sent so far."""
    values: list[int] = []
    while fetched := await log.read(TopicPartition(OUT, 0), len(values), 1000):
        values += [int(value or b"") for value in fetched.records.values]
    return values


async def notes(log: EmbeddedLog) -> int:
    """How many partitions of unfinished replays there are notes about."""
    return sum([len(entries) async for entries in log.restore(TopicPartition(REPLAYS, 0))])


async def test_what_came_before_is_known_and_not_sent(log: EmbeddedLog) -> None:
    """The state is built from the log's beginning; results are sent from the time on that was asked for."""
    await append(log, [2, 3, 4, 5, 6])

    outcome = await replay(log, from_ms=2000)

    assert await sent(log) == [9, 20]
    assert (outcome.read, outcome.sent, outcome.finished) == (5, {OUT: 2}, True)
    assert await notes(log) == 0


async def test_batches_are_cut_where_the_agent_says(log: EmbeddedLog) -> None:
    """As often as it likes; no failure is counted."""
    values = [b"2"] * 1_200
    await log.commit(
        Transaction(
            [Append(P0, Records([b"k"] * len(values), list(values), [0] * len(values)))], (), GROUP, {P0: len(values)}
        )
    )

    outcome = await replay(log, batch=len(values), agent=CuttingSumming)

    assert await sent(log) == list(range(2, 2_402, 2))
    assert (outcome.read, outcome.failed, outcome.finished) == (1_200, 0, True)


async def test_a_shorter_warm_up_knows_less(log: EmbeddedLog) -> None:
    """What is not read cannot count."""
    await append(log, [2, 3, 4, 5, 6])

    await replay(log, from_ms=2000, warm_up_ms=1000)

    assert await sent(log) == [7, 18]


async def test_it_ends_at_a_time_or_where_the_live_agents_are(log: EmbeddedLog) -> None:
    """What the live agents have still to read they will send themselves."""
    await append(log, [2, 4, 6, 8])
    await log.commit(Transaction(group=GROUP, positions={P0: 3}))

    await replay(log, to_ms=2000)
    await replay(log)

    assert await sent(log) == [2, 6, 2, 6, 12]


async def test_live_agents_are_not_touched(log: EmbeddedLog) -> None:
    """Their positions and their tables stay as they are."""
    changelog = TopicPartition("live-sums-changelog", 0)
    await log.create_topics([TopicSpec(changelog.topic, 1, compacted=True)])
    await log.commit(Transaction(changes=[Changes(changelog, {b"sum": b"7"})]))
    await append(log, [2, 4])

    await replay(log)

    assert await log.positions(GROUP, TOPIC) == {P0: 2}
    assert [entries async for entries in log.restore(changelog)] == [[(b"sum", b"7")]]


async def test_partitions_have_states_of_their_own() -> None:
    """One after the other."""
    log = await new_log(partitions=2)
    await append(log, [2, 4])
    await append(log, [100, 200], P1)

    await replay(log)

    assert await sent(log) == [2, 6, 100, 300]
    await log.close()


async def test_records_that_the_agent_cannot_take_are_left_out_and_told(log: EmbeddedLog) -> None:
    """Those of the warm-up are not counted: their results are not wanted."""
    await append(log, [b"no number", 2, b"bad", b"x", 4, b"bad", 6])

    outcome = await replay(log, from_ms=2000, batch=100)

    assert await sent(log) == [6, 12]
    assert outcome.failed == 3
    assert [failure.split(":")[0] for failure in outcome.failures] == [f"{TOPIC}@{offset}" for offset in (2, 3, 5)]
    assert outcome.finished


async def test_an_agent_that_fails_on_everything_ends_it(log: EmbeddedLog) -> None:
    """As a live one stops its partition."""
    await append(log, [b"no number"] * 100)

    with pytest.raises(AgentStopped, match="Repair the agent"):
        await replay(log, batch=1000)


async def test_told_to_stop_it_goes_on_later(log: EmbeddedLog) -> None:
    """What was sent is not sent again."""
    await append(log, [2, 4, 6])
    stop = asyncio.Event()

    class Stopping(WatchedTurn):
        async def on_commit(self) -> None:
            stop.set()

    first = await replay(log, turn_type=Stopping, stop=stop)
    assert not first.finished
    assert await notes(log) == 1

    second = await replay(log)

    assert second.finished
    assert await sent(log) == [2, 6, 12]


async def test_once_finished_it_begins_anew(log: EmbeddedLog) -> None:
    """The same command again sends everything again."""
    await append(log, [2, 4])

    await replay(log)
    await replay(log)

    assert await sent(log) == [2, 6, 2, 6]


async def test_it_follows_the_live_agent_until_nothing_was_missed(log: EmbeddedLog) -> None:
    """Results that the live agent sent while the replay was busy are sent again behind the replay's own."""
    await append(log, [2, 4])
    more = [6, 7, 8]

    class Busy(WatchedTurn):
        async def on_commit(self) -> None:
            if more:
                await append(log, [more.pop(0)])

    outcome = await replay(log, turn_type=Busy)

    assert await sent(log) == [2, 6, 12, 27]
    assert outcome.finished


@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    start=st.integers(0, 12),
    crashes=st.lists(st.integers(1, 6), max_size=4),
    batch=st.integers(1, 5),
)
def test_killed_anywhere_everything_is_sent_once(
    numbers: list[int], start: int, crashes: list[int], batch: int
) -> None:
    """Runs that die before their n-th commit, and one that does not, send together what one alone would have."""

    async def check() -> None:
        whole, broken = await new_log(), await new_log()
        for log in (whole, broken):
            await append(log, numbers)
        await replay(whole, from_ms=1000 * start)
        for crash in crashes:
            left = [crash]

            class Crashing(WatchedTurn):
                async def on_commit(self, left: list[int] = left) -> None:
                    left[0] -= 1
                    if not left[0]:
                        raise LogError("killed")

            try:
                outcome = await replay(broken, from_ms=1000 * start, turn_type=Crashing, batch=batch)
            except LogError:
                continue
            if outcome.finished:
                break
        else:
            await replay(broken, from_ms=1000 * start, batch=batch)
        assert await sent(broken) == await sent(whole)
        await whole.close()
        await broken.close()

    asyncio.run(check())
