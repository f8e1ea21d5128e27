"""Making, extending and listing topics, beside others who do the same; and who in a group has what."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.engine.errors import LogError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Tally, TopicPartition, TopicSpec, Transaction
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Assignments, Names, append, read_all, records

pytestmark = pytest.mark.integration


@pytest.fixture
async def other(kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    """The log of another process, which has not heard of topics made since it started."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings(), role="other")
    await log.start()
    yield log
    await log.close()


async def test_topic_that_somebody_else_made_meanwhile(other: KafkaLog, log: KafkaLog, names: Names) -> None:
    """Who makes a topic that exists with other partitions gets it as it is."""
    await other.create_topics([TopicSpec(names.events, 8), TopicSpec(names.state, 8, compacted=True)])

    assert other.partitions(names.events) == 2
    assert other.partitions(names.state) == 2


async def test_topic_that_somebody_else_made_is_known_when_it_is_needed(
    other: KafkaLog, log: KafkaLog, names: Names
) -> None:
    """Appending to, and asking about, a topic of somebody else works as soon as it exists."""
    await append(other, names.p1, b"a")

    assert (await other.end_offsets(names.events))[names.p1] > 0
    assert await read_all(other, names.p1) == [b"a"]


async def test_many_make_the_same_topic_at_once(kafka: KafkaServer, other: KafkaLog, log: KafkaLog) -> None:
    """Several processes that start at once each find the topic made."""
    names = Names.new()

    await asyncio.gather(log.create_topics(names.specs()), other.create_topics(names.specs()))

    await append(log, names.p0, b"a")
    await append(other, names.p0, b"b")
    assert sorted(value or b"" for value in await read_all(log, names.p0)) == [b"a", b"b"]


async def test_topic_gets_partitions(log: KafkaLog, names: Names) -> None:
    """Partitions are added up to a number, and can be written at once; fewer than there are is an error."""
    await log.extend_topic(names.events, 5)
    await append(log, TopicPartition(names.events, 4), b"a")

    assert log.partitions(names.events) == 5
    with pytest.raises(LogError, match=names.events):
        await log.extend_topic(names.events, 3)


async def test_topic_is_made_when_there_is_a_broker_again(log: KafkaLog) -> None:
    """A cluster that stood still shows no broker for a moment: how many copies it may have is asked again."""
    names = Names.new()

    async def lose_brokers() -> None:
        log._known.cluster._brokers.clear()

    await log._thread.run(lose_brokers())
    await log.create_topics(names.specs())

    await append(log, names.p0, b"a")
    assert await read_all(log, names.p0) == [b"a"]


async def test_topic_with_an_impossible_name(log: KafkaLog) -> None:
    """What Kafka refuses is an error that says so."""
    with pytest.raises(LogError, match="a/b"):
        await log.create_topics([TopicSpec("a/b", 1)])


async def test_owners_of_a_shared_group(other: KafkaLog, log: KafkaLog, names: Names) -> None:
    """Each partition of a group has one owner, by the name of its process."""
    mine, theirs = Assignments(), Assignments()
    await log.join(names.group, [names.events], mine)
    await mine.wait_for({names.p0, names.p1})
    await other.join(names.group, [names.events], theirs)
    async with asyncio.timeout(PATIENCE):
        while not (len(mine.targets) == len(theirs.targets) == 1):
            await asyncio.sleep(0.05)

    owners = await log.owners(names.group)

    assert {target for target, owner in owners.items() if owner.startswith("other-")} == theirs.targets
    assert {target for target, owner in owners.items() if owner.startswith("headrace-")} == mine.targets


async def test_tallies_of_all_processes_are_summed(other: KafkaLog, log: KafkaLog, names: Names) -> None:
    """Several processes count into one ledger, and any of them reads the sum."""
    tally = Tally(60_000, "environmental")

    for writer in (log, other, log):
        await asyncio.gather(
            *(writer.commit(Transaction([Append(names.p0, records(b"x"), {tally: 1})])) for _ in range(3)),
            log.tallies(names.events),
            log.tallies(names.events),
        )

    assert await log.tallies(names.events) == await other.tallies(names.events) == {tally: 9}
