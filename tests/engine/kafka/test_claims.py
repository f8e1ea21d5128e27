"""A name that a process has claimed on Kafka: nobody else writes under it, whoever died, hung or was late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.engine.errors import LogInUse
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, Changes, Transaction
from tests.conftest import KafkaServer
from tests.contract.log_access import Names, append, numbers, read_all, records, restore_all
from tests.engine.kafka.held_log import CALM, HeldLog, held, take_over, wait_until_settled

pytestmark = pytest.mark.integration


@asynccontextmanager
async def process(kafka: KafkaServer) -> AsyncIterator[HeldLog]:
    """The log of one, whose commits the test can hold."""
    log = HeldLog(f"kafka://{kafka.bootstrap}", CALM, role="test")
    await log.start()
    try:
        yield log
    finally:
        log.gate.open()
        await log.close()


@pytest.fixture
async def older(kafka: KafkaServer) -> AsyncIterator[HeldLog]:
    """The log of a process."""
    async with process(kafka) as log:
        yield log


@pytest.fixture
async def newer(kafka: KafkaServer) -> AsyncIterator[HeldLog]:
    """The log of another one."""
    async with process(kafka) as log:
        yield log


@pytest.fixture
async def names(older: KafkaLog, newer: KafkaLog) -> Names:
    """Topics of the test's own; its group is what it claims."""
    names = Names.new()
    await older.create_topics(names.specs())
    await newer.create_topics(names.specs())
    return names


def claimed(names: Names, value: bytes) -> Transaction:
    """One record, under the name."""
    return Transaction([Append(names.p0, records(value))], claim=names.group)


async def test_the_last_to_claim_has_the_name(older: HeldLog, newer: HeldLog, names: Names) -> None:
    """The other one is told who that is with its next commit; what it does beside that goes on."""
    await older.claim(names.group)
    await older.commit(claimed(names, b"older"))
    await newer.claim(names.group)
    for attempt in (b"late", b"later"):
        with pytest.raises(LogInUse, match=r"process \d+ on .* has taken this over; .* only one of them is started"):
            await older.commit(claimed(names, attempt))
    await newer.commit(claimed(names, b"newer"))
    with pytest.raises(LogInUse):
        await older.claim(names.group)
    await append(older, names.p1, b"something else")

    assert await read_all(newer, names.p0) == [b"older", b"newer"]
    assert await read_all(newer, names.p1) == [b"something else"]


async def test_a_commit_that_hung_while_the_name_was_claimed(older: HeldLog, newer: HeldLog, names: Names) -> None:
    """Is refused when it goes on, and nothing of it is there."""
    await older.claim(names.group)
    commit = await held(older, claimed(names, b"hung"))
    await newer.claim(names.group)
    await newer.commit(claimed(names, b"newer"))
    older.gate.open()

    with pytest.raises(LogInUse):
        await commit
    assert await read_all(newer, names.p0) == [b"newer"]


@pytest.mark.parametrize("fault", ["timeout", "rival"])
async def test_fenced_without_another_claim(kafka: KafkaServer, older: HeldLog, names: Names, fault: str) -> None:
    """A transaction that took too long, or that somebody ended who never claimed, is done again, once."""
    older.impatient = fault == "timeout"
    await older.claim(names.group)
    commit = await held(older, claimed(names, b"held"))
    if fault == "rival":
        await take_over(kafka.bootstrap, f"test-{names.group}")
    await wait_until_settled(kafka.bootstrap, names.p0)
    older.gate.open()
    await commit
    await older.commit(claimed(names, b"next"))

    assert await read_all(older, names.p0) == [b"held", b"next"]


async def test_whoever_starts_goes_on_where_the_others_were(kafka: KafkaServer, older: HeldLog, names: Names) -> None:
    """Processes that each read the state first and then write as fast as they can: one at a time, without a gap."""
    begun = list[int]()

    async def run() -> None:
        async with process(kafka) as log:
            await log.claim(names.group)
            number = int((await restore_all(log, names.s0)).get(b"next", b"0"))
            begun.append(number)
            while True:
                change = Changes(names.s0, {b"next": b"%d" % (number + 1)})
                append = Append(names.p0, records(b"%d" % number))
                await log.commit(Transaction([append], [change], claim=names.group))
                number += 1

    tasks = list[asyncio.Task[None]]()
    for together in (1, 2, 1, 2, 1):
        tasks += [asyncio.create_task(run()) for _ in range(together)]
        while (await older.end_offsets(names.events))[names.p0] < 10 * len(tasks):
            await asyncio.sleep(0.01)
    while len(begun) < len(tasks):
        await asyncio.sleep(0.01)
    await older.claim(names.group)
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(each) for each in ended] == [LogInUse] * len(tasks)
    found = await read_all(older, names.p0)
    assert found == numbers(len(found))
