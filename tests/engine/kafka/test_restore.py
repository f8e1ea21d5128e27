"""Restoring a table ends at the end of its changelog, and holds what was committed: no more, no less."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.fetch import read_on
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.restore import CompactedView
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Changes, TopicPartition, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names, append, numbers, read_all, restore_all
from tests.engine.kafka.admin import allow_deletion, begin_segments_often, delete_records, make_anew
from tests.engine.kafka.held_log import CALM, HeldLog, abort, connected, take_over

pytestmark = pytest.mark.integration


@pytest.fixture
async def owner(kafka: KafkaServer) -> AsyncIterator[HeldLog]:
    """The log of the worker that had the table."""
    log = HeldLog(f"kafka://{kafka.bootstrap}", CALM)
    await log.start()
    yield log
    log.gate.open()
    await log.close()


async def change(log: KafkaLog, target: TopicPartition, entries: dict[bytes, bytes | None]) -> None:
    await log.commit(Transaction(changes=[Changes(target, entries)]))


def changelog(entries: dict[bytes, bytes | None]) -> Records:
    return Records(list(entries), list(entries.values()), [1] * len(entries))


# -- transactions


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_restore_waits_for_an_open_transaction(
    kafka: KafkaServer, owner: HeldLog, log: KafkaLog, names: Names, end: str
) -> None:
    """What the former owner had all but committed is in the restore if it is committed, and not if it is aborted."""
    await change(owner, names.s0, {b"a": b"old", b"b": b"old"})
    owner.gate.shut()
    last = asyncio.create_task(owner.commit(Transaction([], [Changes(names.s0, {b"a": b"new"})], "", {})))
    await owner.gate.wait_for_somebody()

    restore = asyncio.create_task(restore_all(log, names.s0))
    await asyncio.wait([restore], timeout=0.3)
    assert not restore.done()
    if end == "abort":
        await take_over(kafka.bootstrap, owner._name)
    else:
        owner.gate.open()
    found = await restore
    owner.gate.open()
    await last

    assert found == {b"a": b"new" if end == "commit" else b"old", b"b": b"old"}
    assert await restore_all(log, names.s0) == {b"a": b"new", b"b": b"old"}


async def test_restore_ends_behind_an_aborted_transaction(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """When the last records were aborted, or all were, restore ends all the same and takes none of them."""
    never = {names.s0: changelog({b"a": b"never", b"b": b"never"}), names.s1: changelog({b"c": b"never"})}
    await change(log, names.s0, {b"a": b"1"})
    await abort(kafka.bootstrap, never)

    assert await restore_all(log, names.s0) == {b"a": b"1"}
    assert await restore_all(log, names.s1) == {}

    await change(log, names.s0, {b"b": b"2"})
    await abort(kafka.bootstrap, never)

    assert await restore_all(log, names.s0) == {b"a": b"1", b"b": b"2"}


async def test_restore_ends_while_inputs_wait(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """Inputs that nobody reads, however many, do not hold up a restore: it has its own reader."""
    rows = Records([None] * 200, [os.urandom(50_000) for _ in range(200)], [1] * 200)
    await log.commit(Transaction([Append(names.p0, rows), Append(names.p1, rows)]))
    await change(log, names.s0, {b"a": b"1"})
    reader = log.reader()
    await reader.wait({names.p0: 0, names.p1: 0}, PATIENCE)

    found = await restore_all(log, names.s0)

    assert found == {b"a": b"1"}
    await reader.close()


async def test_replicated_table_sees_the_last_record(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """A view that is kept up sees every change that is committed, the last one without another behind it."""
    async with connected(kafka.bootstrap) as client:
        view = CompactedView(client, names.s0, SystemClock())
        for number in range(20):
            await change(log, names.s0, {b"k": b"%d" % number})

            assert await view.update() == {b"k": b"%d" % number}


async def test_updates_of_one_view_at_once(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """Several callers may bring a view up to date at once: none puts older values back."""
    async with connected(kafka.bootstrap) as client:
        view = CompactedView(client, names.s0, SystemClock())

        async def write() -> None:
            for number in range(30):
                await change(log, names.s0, {b"k": b"%d" % number, b"%d" % number: b"x"})

        async def follow() -> list[int]:
            return [int((await view.update()).get(b"k", b"-1")) for _ in range(40)]

        writing = asyncio.create_task(write())
        followed = await asyncio.gather(*(follow() for _ in range(4)))
        await writing

        assert all(seen == sorted(seen) for seen in followed)
        assert len(await view.update()) == 31


# -- deleted and compacted


@pytest.fixture
async def cleaned_log(odd_kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    """A log on the Kafka that compacts at once."""
    log = KafkaLog(f"kafka://{odd_kafka.bootstrap}", KafkaSettings())
    await log.start()
    yield log
    await log.close()


async def offsets_left(bootstrap: str, target: TopicPartition, end: int) -> list[int]:
    """The offset of every record that is left in a partition."""
    offset, left = 0, []
    async with connected(bootstrap) as client:
        while offset < end:
            for stretch in await read_on(client, target, offset, SystemClock()):
                fetched = stretch.decode()
                left += [fetched.offset(index) for index in range(len(fetched.records))]
                offset = stretch.next_offset
    return left


async def test_restore_of_a_compacted_changelog(odd_kafka: KafkaServer, cleaned_log: KafkaLog) -> None:
    """A changelog with holes, at its beginning, inside of batches and in place of whole transactions, restores."""
    names = Names.new()
    await cleaned_log.create_topics(names.specs())
    await begin_segments_often(odd_kafka.bootstrap, names.state)
    expected: dict[bytes, bytes] = {}
    compacted: list[int] = []
    async with asyncio.timeout(PATIENCE):
        for round_ in range(1000):
            entries: dict[bytes, bytes | None] = dict.fromkeys(numbers(20 if round_ else 60), b"%d" % round_)
            if round_ == 1:
                entries |= dict.fromkeys(numbers(10, 50))
            await change(cleaned_log, names.s0, entries)
            expected = {key: value for key, value in (expected | entries).items() if value is not None}
            end = (await cleaned_log.end_offsets(names.state))[names.s0]
            compacted = await offsets_left(odd_kafka.bootstrap, names.s0, end)
            assert await restore_all(cleaned_log, names.s0) == expected
            if round_ > 3 and len(compacted) < 20 * round_ and 0 not in compacted:
                break
            await asyncio.sleep(0.2)

    assert compacted[-1] - compacted[0] >= len(compacted)
    assert len(expected) == 50
    assert await cleaned_log.first_offset(names.s0) == 0


async def test_restore_of_an_emptied_changelog(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """Where every record was deleted, up to the end, there is nothing to wait for; what comes later is restored."""
    await change(log, names.s0, {b"a": b"1"})
    end = (await log.end_offsets(names.state))[names.s0]
    await allow_deletion(kafka.bootstrap, names.state)
    await delete_records(kafka.bootstrap, names.s0, end)

    assert await restore_all(log, names.s0) == {}

    await change(log, names.s0, {b"b": b"2"})
    assert await restore_all(log, names.s0) == {b"b": b"2"}


async def test_restore_starts_over_when_records_are_deleted_below_it(
    kafka: KafkaServer, log: KafkaLog, names: Names
) -> None:
    """A restore whose place is deleted while it runs keeps nothing of what it had read: it might be gone."""
    for start in range(0, 12, 4):
        await change(log, names.s0, {key: os.urandom(1 << 20) for key in numbers(4, start)})
    await change(log, names.s0, {b"last": b"1"})
    await allow_deletion(kafka.bootstrap, names.state)
    end = (await log.end_offsets(names.state))[names.s0]
    async with connected(kafka.bootstrap) as client:
        await client.add_topic(names.state)
        view = CompactedView(client, names.s0, SystemClock())
        await view.reader.look()
        piece = await view.reader.read()
        assert piece is not None
        view._take(piece)
        assert b"0" in view.entries

        await delete_records(kafka.bootstrap, names.s0, end - 2)

        assert await view.update() == {b"last": b"1"}


async def test_topic_made_anew_during_a_restore(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """A view of a topic that was deleted and made again shows what is in the new one."""
    for number in range(5):
        await change(log, names.s0, {b"%d" % number: b"old"})
    async with connected(kafka.bootstrap) as client:
        view = CompactedView(client, names.s0, SystemClock())
        await view.update()

        await make_anew(kafka.bootstrap, names.state, 2)
        await append(log, names.p0, b"elsewhere")
        async with asyncio.timeout(PATIENCE):
            await change(log, names.s0, {b"0": b"new"})
            while await view.update() != {b"0": b"new"}:
                pass

    assert await read_all(log, names.p0) == [b"elsewhere"]
