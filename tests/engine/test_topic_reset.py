"""Starting a group over on a topic, on the embedded log in memory."""

from collections.abc import AsyncIterator

import pytest

from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, Changes, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.topic_reset import Growth, Where, carry_out, plan_reset

TOPIC, GROUP = "things", "group"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
STATE, SUMS, OTHER = (f"{GROUP}-{name}-changelog" for name in ("state", "sums", "other"))


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """Two partitions of ten records, one a second, read up to 4 and 10; tables with an entry in each partition."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics(
        [TopicSpec(TOPIC, 2), *(TopicSpec(name, 2, compacted=True) for name in (STATE, SUMS, OTHER))]
    )
    for target in (P0, P1):
        for second in range(10):
            await log.commit(Transaction([Append(target, Records([b"k"], [b"v"], [1000 * second]))]))
    changes = [
        Changes(TopicPartition(name, n), {b"a": b"1", b"b": b"2"}) for name in (STATE, SUMS, OTHER) for n in (0, 1)
    ]
    await log.commit(Transaction(changes=changes, group=GROUP, positions={P0: 4, P1: 10}))
    yield log
    await log.close()


async def entries(log: EmbeddedLog, topic: str) -> int:
    """How many keys a changelog has."""
    targets = [TopicPartition(topic, number) for number in range(log.partitions(topic))]
    return sum([len(chunk) for target in targets async for chunk in log.restore(target)])


@pytest.mark.parametrize(
    ("where", "after"), [("current", (4, 10)), ("earliest", (0, 0)), ("latest", (10, 10)), (7000, (7, 7))]
)
async def test_positions_are_set(log: EmbeddedLog, where: Where, after: tuple[int, int]) -> None:
    """To what the word or the time says."""
    plan = await plan_reset(log, GROUP, TOPIC, where, [])

    await carry_out(log, plan)

    assert await log.positions(GROUP, TOPIC) == dict(zip((P0, P1), after, strict=True))
    assert [move.skipped for move in plan.moves] == [after[0] - 4, after[1] - 10]


async def test_a_position_that_the_log_does_not_have_becomes_the_oldest(log: EmbeddedLog) -> None:
    """As in a topic that was deleted and made again."""
    await log.commit(Transaction(group=GROUP, positions={P0: 99}))

    await carry_out(log, await plan_reset(log, GROUP, TOPIC, "current", []))

    assert await log.positions(GROUP, TOPIC) == {P0: 0, P1: 10}


async def test_tables_are_emptied_and_sums_stay(log: EmbeddedLog) -> None:
    """Tables of other topics are not touched."""
    deleted = await carry_out(log, await plan_reset(log, GROUP, TOPIC, "current", ["state"], ["sums"]))

    assert deleted == 4
    assert [await entries(log, name) for name in (STATE, SUMS, OTHER)] == [0, 4, 4]


async def test_a_plan_changes_nothing(log: EmbeddedLog) -> None:
    """Until it is carried out."""
    await plan_reset(log, GROUP, TOPIC, "earliest", ["state", "sums"])

    assert await log.positions(GROUP, TOPIC) == {P0: 4, P1: 10}
    assert await entries(log, STATE) == 4


async def test_a_table_that_was_never_written_is_left_to_the_worker(log: EmbeddedLog) -> None:
    """It makes the changelog when it starts."""
    plan = await plan_reset(log, GROUP, TOPIC, "current", ["state", "new"])

    assert plan.emptied == [STATE]
    assert not plan.grown


async def test_a_topic_with_fewer_partitions_than_its_tables_grows(log: EmbeddedLog) -> None:
    """It was made again, and tables cannot lose any."""
    await log.create_topics([TopicSpec("smaller", 1)])
    tables = log.partitions(STATE)

    plan = await plan_reset(log, GROUP, "smaller", "current", ["state"], ["sums"])

    assert plan.grown == [Growth("smaller", 1, tables)]
    assert plan.emptied == [STATE]
