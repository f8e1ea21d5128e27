"""Kafka may lose the marker that ends a transaction: its records end as the transaction did all the same."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from headrace.engine.errors import CommitRefused
from headrace.engine.kafka.client import Rejected
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.offsets import LATEST, READ_UNCOMMITTED, list_offsets
from headrace.engine.kafka.open_transactions import open_partitions
from headrace.engine.kafka.producer import Producer, Scope
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Member, TopicPartition, Transaction
from headrace.engine.records import Records
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names, read_all, records
from tests.engine.kafka.admin import allow_a_look_only
from tests.engine.kafka.held_log import (
    HeldLog,
    HeldProducer,
    everything,
    held,
    name_of,
    opened,
    take_over,
    wait_until_settled,
)

pytestmark = pytest.mark.integration


class Forgetful(Producer):
    """Does not say in its first transaction that it writes to partition 1: no marker ends what it writes there."""

    forgets, extended = 1, 0

    async def _extend(self, targets: Iterable[TopicPartition], group: str) -> None:
        self.extended += 1
        if self.extended <= self.forgets:
            targets = [target for target in targets if target.partition != 1]
        await super()._extend(targets, group)


class Unanswered(Forgetful):
    """Hears nothing of how its first transaction ended, too."""

    async def _end(self, commit: bool) -> None:
        await super()._end(commit)
        if self.extended == 1:
            raise Rejected(48, "EndTxnRequest")


class ForgetfulLog(HeldLog):
    """A log with such a producer."""

    kind: type[Forgetful] = Forgetful

    async def _new_producer(self, name: str) -> Producer:
        made = await super()._new_producer(name)
        forgetful = type("ForgetfulHeld", (self.kind, HeldProducer), {"gate": self.gate})
        producer = forgetful(made.client, made.name, made._timeout_ms / 1000, made._clock)
        assert isinstance(producer, Producer)
        return producer


class UnansweredLog(ForgetfulLog):
    """A log whose first commit is not answered."""

    kind = Unanswered


def producer_of(log: KafkaLog) -> Producer:
    """The only one of a log that has committed."""
    (queue,) = log._queues.values()
    producer = queue._transactions._producer
    assert producer is not None
    return producer


async def break_connections(producer: Producer) -> None:
    """As when a broker goes."""
    for connection in list(producer.client._conns.values()):
        connection.close()


@pytest.fixture
async def forgetful(odd_kafka: KafkaServer) -> AsyncIterator[ForgetfulLog]:
    log = ForgetfulLog(f"kafka://{odd_kafka.bootstrap}", KafkaSettings())
    await log.start()
    yield log
    log.gate.open()
    await log.close()


async def test_hanging_records_end_as_their_transaction_did(odd_kafka: KafkaServer, forgetful: ForgetfulLog) -> None:
    """What was acknowledged and lost its marker is committed when a broker was gone, before anything else happens."""
    names = Names.new()
    await forgetful.create_topics(names.specs())
    await forgetful.commit(everything(names, b"acknowledged"))
    assert await read_all(forgetful, names.p1) == []
    await forgetful._thread.run(break_connections(producer_of(forgetful)))

    refused = everything(names, b"refused", positions={names.o0: 1}, member=Member("nobody", 7))
    with pytest.raises(CommitRefused):
        await forgetful.commit(refused)

    assert await wait_until_settled(odd_kafka.bootstrap, names.p1) > 1
    assert await read_all(forgetful, names.p1) == [b"acknowledged"]
    assert await read_all(forgetful, names.p0) == [b"acknowledged"]


async def test_a_broker_goes_before_the_commit_is_answered(odd_kafka: KafkaServer, forgetful: ForgetfulLog) -> None:
    """The marker is lost although no broker goes afterwards: what was acknowledged is committed all the same."""
    names = Names.new()
    await forgetful.create_topics(names.specs())
    commit = await held(forgetful, everything(names, b"acknowledged"))
    await forgetful._thread.run(break_connections(producer_of(forgetful)))
    forgetful.gate.open()
    await commit

    refused = everything(names, b"refused", positions={names.o0: 1}, member=Member("nobody", 7))
    with pytest.raises(CommitRefused):
        await forgetful.commit(refused)

    assert await wait_until_settled(odd_kafka.bootstrap, names.p1) > 1
    assert await read_all(forgetful, names.p1) == [b"acknowledged"]


async def test_commit_that_nobody_answered(odd_kafka: KafkaServer) -> None:
    """Its records that hang end as the transaction did, which was committed: they are not aborted on a guess."""
    names = Names.new()
    log = UnansweredLog(f"kafka://{odd_kafka.bootstrap}", KafkaSettings())
    await log.start()
    await log.create_topics(names.specs())

    await log.commit(everything(names, b"unanswered"))

    assert await read_all(log, names.p0) == [b"unanswered"]
    assert await read_all(log, names.p1) == [b"unanswered"]
    await log.close()


async def test_slow_commit(odd_kafka: KafkaServer, forgetful: ForgetfulLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker may have been lost though no connection was, as nobody knows what a busy cluster did meanwhile."""
    monkeypatch.setattr("headrace.engine.kafka.producer.SLOW", 0.0)
    names = Names.new()
    await forgetful.create_topics(names.specs())
    await forgetful.commit(everything(names, b"acknowledged"))

    refused = everything(names, b"refused", positions={names.o0: 1}, member=Member("nobody", 7))
    with pytest.raises(CommitRefused):
        await forgetful.commit(refused)

    assert await wait_until_settled(odd_kafka.bootstrap, names.p1) > 1
    assert await read_all(forgetful, names.p1) == [b"acknowledged"]


async def test_marker_that_is_lost_twice(odd_kafka: KafkaServer, forgetful: ForgetfulLog) -> None:
    """The marker that is to end what hangs may be lost, too: there is one more."""
    names = Names.new()
    await forgetful.create_topics(names.specs())
    await forgetful.commit(everything(names, b"acknowledged"))
    producer = producer_of(forgetful)
    assert isinstance(producer, Forgetful)
    producer.forgets = 2 + producer.extended
    await forgetful._thread.run(break_connections(producer))

    await append(forgetful, names.o0, names.group, b"later")

    assert await read_all(forgetful, names.p1) == [b"acknowledged"]


async def test_hanging_records_of_a_process_that_is_gone(odd_kafka: KafkaServer) -> None:
    """Who comes after it under its name ends them as the transaction ended, its positions too."""
    names = Names.new()
    settings = await leave_hanging(odd_kafka.bootstrap, names)

    async with log_at(odd_kafka.bootstrap, settings) as successor:
        await append(successor, names.p0, names.group, b"later")

        assert await read_all(successor, names.p1) == [b"acknowledged"]
        assert await read_all(successor, names.p0) == [b"acknowledged", b"later"]


async def test_a_process_that_left_nothing_hanging(odd_kafka: KafkaServer) -> None:
    """Who comes after it under its name begins at once, whatever it wrote last."""
    names = Names.new()
    settings = KafkaSettings(instance=names.group)

    for value in (b"1", b"2"):
        async with log_at(odd_kafka.bootstrap, settings) as log:
            await log.create_topics(names.specs())
            await append(log, names.p0, "", value)

            assert await read_all(log, names.p0, int(value) * 2 - 2) == [value]


async def test_transactions_of_others_are_left_alone(odd_kafka: KafkaServer) -> None:
    """Who ends what its predecessor left hanging writes no marker into topics with open transactions of others."""
    names = Names.new()
    settings = await leave_hanging(odd_kafka.bootstrap, names)

    async with (
        opened(odd_kafka.bootstrap, {names.o0: records(b"other")}, names.other) as other,
        log_at(odd_kafka.bootstrap, settings) as successor,
    ):
        await append(successor, names.p0, names.group, b"later")
        assert await read_all(successor, names.p1) == [b"acknowledged"]
        assert await list_offsets(other.client, [names.o0], LATEST, READ_UNCOMMITTED) == {names.o0: 1}

        await other.end(Scope(frozenset({names.o0})))
        assert await wait_until_settled(odd_kafka.bootstrap, names.o0) == 2
        assert await read_all(successor, names.o0) == [b"other"]


async def test_topics_that_may_not_be_read_are_left_alone(odd_kafka: KafkaServer) -> None:
    """An open transaction in a topic of others, which this user only sees, is no reason to stop."""
    names = Names.new()
    settings = await leave_hanging(odd_kafka.bootstrap, names)

    async with (
        opened(odd_kafka.bootstrap, {names.o0: records(b"other")}, names.other) as other,
        log_at(odd_kafka.bootstrap, settings) as successor,
    ):
        assert await open_partitions(other.client, other.id) == {names.o0}
        await allow_a_look_only(odd_kafka.bootstrap, names.other)
        async with asyncio.timeout(PATIENCE):
            while await open_partitions(other.client, other.id):
                await asyncio.sleep(0.02)

        await append(successor, names.p0, names.group, b"later")
        assert await read_all(successor, names.p1) == [b"acknowledged"]


async def leave_hanging(bootstrap: str, names: Names) -> KafkaSettings:
    """Commit, lose a marker, and go; the settings of whoever comes after it."""
    settings = KafkaSettings(instance=names.group)
    gone = ForgetfulLog(f"kafka://{bootstrap}", settings)
    await gone.start()
    await gone.create_topics(names.specs())
    await gone.commit(everything(names, b"acknowledged"))
    assert await read_all(gone, names.p1) == []
    await gone.close()
    return settings


@asynccontextmanager
async def log_at(bootstrap: str, settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(f"kafka://{bootstrap}", settings)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


async def test_successor_that_finds_nothing_to_end(kafka: KafkaServer) -> None:
    """A process that only appends, with a name, starts again and appends: it ends no transaction that is not there."""
    names = Names.new()
    for value in (b"first", b"second"):
        log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(instance=names.group))
        await log.start()
        await log.create_topics(names.specs())
        async with asyncio.timeout(PATIENCE):
            await append(log, names.p0, "", value)
        await wait_until_settled(kafka.bootstrap, names.p0)
        found = await read_all(log, names.p0)
        await log.close()

    assert found == [b"first", b"second"]


async def append(log: KafkaLog, target: TopicPartition, group: str, value: bytes) -> None:
    """Append with the producer of a group."""
    await log.commit(Transaction([Append(target, Records([value], [value], [1]))], [], group))


async def test_hanging_records_of_an_aborted_transaction(odd_kafka: KafkaServer, forgetful: ForgetfulLog) -> None:
    """What was aborted and lost its marker is aborted before the transaction is done again: it is there once."""
    names = Names.new()
    await forgetful.create_topics(names.specs())
    commit = await held(forgetful, everything(names, b"held"))

    await take_over(odd_kafka.bootstrap, name_of(forgetful, names.group))
    forgetful.gate.open()
    await commit

    assert await read_all(forgetful, names.p0) == [b"held"]
    assert await read_all(forgetful, names.p1) == [b"held"]
