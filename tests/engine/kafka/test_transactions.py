"""A commit on Kafka happens once or not at all, whatever becomes of its transaction."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.engine.errors import CommitRefused, LogError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.producer import Producer, Scope
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Member, TopicPartition, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import (
    Assignments,
    Names,
    append,
    fetch,
    numbers,
    read_all,
    records,
    restore_all,
)
from tests.engine.kafka.held_log import (
    CALM,
    HeldLog,
    abort,
    everything,
    held,
    name_of,
    take_over,
    wait_until_settled,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def log(kafka: KafkaServer) -> AsyncIterator[HeldLog]:
    """A log whose commits the test can hold."""
    log = HeldLog(f"kafka://{kafka.bootstrap}", CALM)
    await log.start()
    yield log
    log.gate.open()
    await log.close()


@pytest.fixture
async def other(kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    """A log of another process."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", CALM)
    await log.start()
    yield log
    await log.close()


# -- fenced, timed out


@pytest.mark.parametrize("fault", ["timeout", "rival"])
async def test_transaction_that_was_aborted_is_done_again(
    kafka: KafkaServer, log: HeldLog, names: Names, fault: str
) -> None:
    """What has no positions is written again when the cluster aborted it; each record is there once."""
    log.impatient = True  # with a rival, too: he leaves alone what is behind
    await append(log, names.p0, b"before")
    commit = await held(log, everything(names, b"held"))
    behind = asyncio.create_task(append(log, names.p0, b"behind"))

    if fault == "rival":
        await take_over(kafka.bootstrap, name_of(log, names.group))
    await wait_until_settled(kafka.bootstrap, names.p0)
    log.gate.open()
    await asyncio.gather(commit, behind)

    assert sorted(value or b"" for value in await read_all(log, names.p0)) == [b"before", b"behind", b"held"]
    assert await read_all(log, names.p1) == [b"held"]
    assert await restore_all(log, names.s0) == {b"held": b"set"}


@pytest.mark.parametrize("fault", ["timeout", "rival"])
async def test_transaction_that_timed_out_is_done_again(
    kafka: KafkaServer, log: HeldLog, names: Names, fault: str
) -> None:
    """With positions an aborted transaction is refused and leaves nothing; done again, it counts once."""
    log.impatient = fault == "timeout"
    commit = await held(log, everything(names, b"held", positions={names.o0: 7}))

    if fault == "rival":
        await take_over(kafka.bootstrap, name_of(log, names.group))
    await wait_until_settled(kafka.bootstrap, names.p0)
    log.gate.open()
    with pytest.raises(CommitRefused):
        await commit

    assert await read_all(log, names.p0) == []
    assert await restore_all(log, names.s0) == {}
    assert await log.positions(names.group, names.other) == {names.o0: 0}
    await log.commit(everything(names, b"again", positions={names.o0: 7}))
    assert await read_all(log, names.p0) == [b"again"]
    assert await log.positions(names.group, names.other) == {names.o0: 7}


async def test_rivals_of_one_name_lose_and_double_nothing(kafka: KafkaServer, names: Names) -> None:
    """Two processes under one name get in each other's way, but what either has acknowledged is there once."""
    settings = KafkaSettings(instance=names.group)
    rivals = [KafkaLog(f"kafka://{kafka.bootstrap}", settings) for _ in range(2)]
    for rival in rivals:
        await rival.start()

    async def write(rival: KafkaLog, name: int) -> None:
        for number in range(8):
            await append(rival, names.p0, b"%d:%d" % (name, number))

    await asyncio.gather(*(write(rival, name) for name, rival in enumerate(rivals)))

    values = [value or b"" for value in await read_all(rivals[0], names.p0)]
    for rival in rivals:
        await rival.close()
    assert [value for value in values if value.startswith(b"0")] == [b"0:%d" % number for number in range(8)]
    assert [value for value in values if value.startswith(b"1")] == [b"1:%d" % number for number in range(8)]


class Unanswered(Producer):
    """Never hears that its first transaction has ended, until a rival was there."""

    bootstrap = ""
    failed = False

    async def end(self, scope: Scope) -> None:
        await super().end(scope)
        if not self.failed:
            self.failed = True
            await take_over(self.bootstrap, self.name)
            await super().end(scope)


class UnansweredLog(HeldLog):
    """A log with such a producer."""

    async def _new_producer(self, name: str) -> Producer:
        made = await super()._new_producer(name)
        producer = Unanswered(made.client, made.name, made._timeout_ms / 1000, made._clock)
        producer.bootstrap = self._servers
        return producer


async def test_commit_that_was_not_answered_is_not_done_twice(kafka: KafkaServer, names: Names) -> None:
    """Whether a transaction was committed whose answer got lost is looked up, not guessed."""
    log = UnansweredLog(f"kafka://{kafka.bootstrap}", KafkaSettings())
    await log.start()

    await append(log, names.p0, *numbers(3))
    await append(log, names.p0, b"next")

    assert await read_all(log, names.p0) == [*numbers(3), b"next"]
    await log.close()


# -- refused


async def joined(log: KafkaLog, names: Names) -> Member:
    listener = Assignments()
    await log.join(names.group, [names.other], listener)
    await listener.wait_for({names.o0})
    return listener.member


@pytest.mark.parametrize("stale", ["generation", "id", "instance"])
async def test_stale_member_changes_nothing(other: KafkaLog, log: HeldLog, names: Names, stale: str) -> None:
    """A commit in the name of a member that the group does not know as such is refused, whole."""
    member = await joined(other, names)
    changed = {
        "generation": member._replace(generation=member.generation - 1),
        "id": member._replace(id="somebody-else"),
        "instance": member._replace(instance="somebody-else"),
    }[stale]

    with pytest.raises(CommitRefused):
        await log.commit(everything(names, b"stale", positions={names.o0: 3}, member=changed))
    await log.commit(everything(names, b"good", positions={names.o0: 1}, member=member))

    assert await read_all(log, names.p0) == [b"good"]
    assert await restore_all(log, names.s0) == {b"good": b"set"}
    assert await log.positions(names.group, names.other) == {names.o0: 1}


async def test_member_that_left_changes_nothing(other: KafkaLog, log: HeldLog, names: Names) -> None:
    """Who has left the group cannot commit for it any more."""
    listener = Assignments()
    membership = await other.join(names.group, [names.other], listener)
    await listener.wait_for({names.o0})
    await membership.leave()

    with pytest.raises(CommitRefused):
        await log.commit(everything(names, b"late", positions={names.o0: 3}, member=listener.member))

    assert await read_all(log, names.p0) == []
    assert await log.positions(names.group, names.other) == {names.o0: 0}


async def test_refused_commit_is_not_committed_with_the_next(other: KafkaLog, log: HeldLog, names: Names) -> None:
    """What a refused transaction wrote is aborted at once, and stays so when later ones are committed."""
    member = await joined(other, names)
    refused = everything(names, b"refused", positions={names.o0: 3}, member=member._replace(generation=77))

    for number in range(5):
        with pytest.raises(CommitRefused):
            await log.commit(refused)
        # Nobody waits for what is refused: the end of the partition is known before anything else is committed.
        assert await read_all(other, names.p0) == numbers(number)
        await log.commit(everything(names, b"%d" % number, positions={names.o0: number}, member=member))

    assert await read_all(log, names.p0) == numbers(5)
    assert await read_all(log, names.p1) == numbers(5)
    assert set(await restore_all(log, names.s0)) == set(numbers(5))


async def test_refused_commit_is_aborted_at_once(kafka: KafkaServer, other: KafkaLog, names: Names) -> None:
    """Nobody waits for what was refused: it is aborted before the next commit, and long before it would time out."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(transaction_timeout=600))
    await log.start()
    member = await joined(other, names)

    with pytest.raises(CommitRefused):
        await log.commit(everything(names, b"refused", positions={names.o0: 3}, member=member._replace(generation=77)))

    await wait_until_settled(kafka.bootstrap, names.p0)
    assert await read_all(other, names.p0) == []
    assert await restore_all(other, names.s0) == {}
    assert await other.positions(names.group, names.other) == {names.o0: 0}
    await log.close()


async def test_failed_commit_moves_nothing(kafka: KafkaServer, names: Names) -> None:
    """A record that Kafka will never take fails the commit for good; nothing of it is there, and no position moves."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(compression="none"))
    await log.start()
    large = Records([b"k"], [bytes(5 << 20)], [1])

    with pytest.raises(LogError, match=r"max\.message\.bytes"):
        await log.commit(
            Transaction([Append(names.p1, records(b"x")), Append(names.p0, large)], [], names.group, {names.o0: 3})
        )

    assert await read_all(log, names.p1) == []
    assert await log.positions(names.group, names.other) == {names.o0: 0}
    with pytest.raises(LogError):
        await log.commit(Transaction(group=names.group, positions={names.o0: 1}))
    await log.close()


# -- visible together


async def test_outputs_are_read_only_with_their_position(other: KafkaLog, log: HeldLog, names: Names) -> None:
    """Until a transaction has ended nobody reads anything of it; positions and restore wait for its end."""
    commit = await held(log, everything(names, b"out", positions={names.o0: 5}))
    waiting = [
        asyncio.create_task(other.positions(names.group, names.other)),
        asyncio.create_task(restore_all(other, names.s0)),
    ]
    async with reading(other) as reader:
        assert not await reader.wait({names.p0: 0, names.p1: 0}, 0.3)
        assert not any(task.done() for task in waiting)

        log.gate.open()
        await commit

        assert (await fetch(reader, names.p0, 0)).records.values == [b"out"]
        assert (await fetch(reader, names.p1, 0)).records.values == [b"out"]
    assert await asyncio.gather(*waiting) == [{names.o0: 5}, {b"out": b"set"}]


async def test_lag_reaches_zero_behind_markers_and_gaps(kafka: KafkaServer, log: HeldLog, names: Names) -> None:
    """Behind markers and aborted records a reader still comes to the end, by a move without records."""
    rows = {names.p0: records(*numbers(100)), names.p1: records(b"never")}
    await append(log, names.p0, b"a")
    await abort(kafka.bootstrap, rows)
    await append(log, names.p0, b"b")
    await abort(kafka.bootstrap, rows)
    ends = await log.end_offsets(names.events)

    found: dict[TopicPartition, list[bytes | None]] = {}
    async with reading(log) as reader:
        for target, end in ends.items():
            position, found[target] = 0, []
            while position < end:
                fetched = await fetch(reader, target, position)
                found[target] += fetched.records.values
                position = fetched.next_offset
            assert position == end

    assert found == {names.p0: [b"a", b"b"], names.p1: []}
    assert min(ends.values()) > 2


async def test_reading_inside_an_aborted_transaction(kafka: KafkaServer, log: HeldLog, names: Names) -> None:
    """A read that begins among aborted records finds none of them."""
    await append(log, names.p0, b"a")
    start = await wait_until_settled(kafka.bootstrap, names.p0)
    await abort(kafka.bootstrap, {names.p0: records(*numbers(50))})
    await append(log, names.p0, b"b")

    for offset in (start, start + 1, start + 25, start + 49):
        assert await read_all(log, names.p0, offset) == [b"b"]


async def test_commits_of_many_partitions_and_batches(log: HeldLog, names: Names) -> None:
    """A transaction of more than one request per partition is whole and in order."""
    rows = Records([None] * 40_000, [b"%d" % number + b"x" * 100 for number in range(40_000)], [1] * 40_000)
    targets = [names.p0, names.p1, names.o0]

    await log.commit(Transaction([Append(target, rows) for target in targets]))

    for target in targets:
        assert await read_all(log, target, max_records=5_000) == rows.values


async def test_producer_of_a_started_process_ends_what_was_left_open(
    kafka: KafkaServer, log: HeldLog, names: Names, other: KafkaLog
) -> None:
    """A process that starts under the name of one that died does not wait for its transaction to time out."""
    await held(log, everything(names, b"left open"))
    successor = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings())
    successor._name = log._name
    await successor.start()

    await successor.commit(everything(names, b"new"))

    assert await read_all(other, names.p0) == [b"new"]
    await successor.close()


async def test_closing_aborts_what_is_open(kafka: KafkaServer, names: Names, other: KafkaLog) -> None:
    """A log that is closed while Kafka does not finish a commit tells its callers, and leaves nothing open."""
    log = HeldLog(f"kafka://{kafka.bootstrap}", KafkaSettings())
    await log.start()
    commit = await held(log, everything(names, b"held"))
    behind = asyncio.create_task(log.commit(everything(names, b"behind")))
    await asyncio.sleep(0)

    await log.close()

    with pytest.raises(LogError):
        await commit
    with pytest.raises(LogError):
        await behind
    with pytest.raises(LogError):
        await log.commit(everything(names, b"too late"))
    assert await read_all(other, names.p0) == []
