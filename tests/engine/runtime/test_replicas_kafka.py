"""Replicated tables in workers on a real Kafka."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from headrace.engine.app import App
from headrace.engine.clock import SystemClock
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.tables.registry import Registry
from tests.engine.kafka.admin import make_anew
from tests.engine.runtime.kafka_apps import SETTINGS, Build, Place, Server, wait_shared, wait_until
from tests.engine.runtime.naming import Naming

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


class Registered(NamedTuple):
    """Topics and group of one test, with a registry."""

    place: Place
    table: str
    registry: Registry[str]

    def naming(self, operators: list[Naming]) -> Build:
        """An app with the agent, which is put into `operators`."""

        def build(app: App) -> None:
            operators.append(Naming(self.place.topic, self.place.output, self.table))
            app.add(operators[-1:])

        return build

    async def send(self, message: bytes, time_ms: int | None = None, partition: int = 0) -> None:
        """Append a record of device "a", now or at another time."""
        stamp = CLOCK.now_ms() if time_ms is None else time_ms
        records = Records([b"a"], [message], [stamp])
        await self.place.log.commit(Transaction([Append(self.place.target(partition), records)]))

    async def sent(self) -> list[bytes | None]:
        return [value for values in (await self.place.values()).values() for value in values]

    async def wait_sent(self, *expected: bytes) -> None:
        """Wait until as much was sent; it is this."""

        async def enough() -> bool:
            return len(await self.sent()) >= len(expected)

        await wait_until(enough, f"fewer than {len(expected)} records were sent")
        assert await self.sent() == list(expected)


@asynccontextmanager
async def registered(server: Server, partitions: int = 1) -> AsyncIterator[Registered]:
    log = KafkaLog(f"kafka://{server.bootstrap}", SETTINGS)
    await log.start()
    place = Place(server, log)
    await place.create(partitions)
    await log.create_topics([TopicSpec(topics.DEAD_LETTERS, 1)])
    table = f"names-{place.group}"
    yield Registered(place, table, Registry(log, table, str.encode, CLOCK, delay=0))
    await log.close()


@pytest.fixture
async def here(kafka: Server) -> AsyncIterator[Registered]:
    """One partition."""
    async with registered(kafka) as found:
        yield found


async def test_two_workers_both_see_every_change(kafka: Server) -> None:
    """Each record is worked on with the change just before it, on either worker; the topic is made by the first."""
    async with registered(kafka, partitions=2) as here:
        operators: list[Naming] = []
        async with (
            here.place.worker(here.naming(operators)) as one,
            here.place.worker(here.naming(operators)) as other,
        ):
            await wait_shared([one, other], 2)
            for number in range(30):
                await here.registry.put("a", f"n{number}")
                await asyncio.gather(*(here.send(b"%d" % number, partition=partition) for partition in range(2)))
            await here.place.wait_done()

            expected = [b"%d=n%d" % (number, number) for number in range(30)]
            assert await here.place.values() == {0: expected, 1: expected}
            await wait_until(lambda: all(operator.names.entries == 1 for operator in operators), "one has no table")


async def test_a_killed_worker_finds_what_held_before(here: Registered) -> None:
    """Killed after a change, with records left from before it: its successor reads the times of changes, too."""
    first = await here.registry.put("a", "old")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.engine.runtime.naming",
        here.place.url, here.place.group, here.place.topic, here.place.output, here.table,
    )  # fmt: skip
    await here.send(b"1")
    await here.wait_sent(b"1=old")
    process.kill()
    await process.wait()
    second = await here.registry.put("a", "new")
    for message, time_ms in (b"2", second - 1), (b"3", second), (b"4", first - 1):
        await here.send(message, time_ms)

    async with here.place.worker(here.naming([])):
        await here.wait_sent(b"1=old", b"2=old", b"3=new", b"4=?")


async def test_a_topic_that_is_extended_or_made_anew_is_followed(here: Registered, kafka: Server) -> None:
    """New partitions are read; of a topic that was made anew only what is in it now."""
    log, operators = here.place.log, list[Naming]()
    async with here.place.worker(here.naming(operators)):
        await here.registry.change({f"k{number}": "old" for number in range(20)})
        await log.extend_topic(here.table, 3)
        await here.registry.change({"a": "new"} | {f"k{number}": "new" for number in range(20)})
        names = operators[0].names
        expected = {"a": "new"} | {f"k{number}": "new" for number in range(20)}
        await wait_until(lambda: dict(names.items(CLOCK.now_ms())) == expected, "partitions are missing")

        await make_anew(kafka.bootstrap, here.table, 2)
        await wait_until(lambda: names.entries in (0, 1), "the old entries stay")
        async with registered_again(here) as registry:
            await registry.put("b", "anew")
        await wait_until(lambda: dict(names.items(CLOCK.now_ms())) == {"b": "anew"}, "the new entry is missing")
        await here.send(b"1")
        await here.wait_sent(b"1=?")


@asynccontextmanager
async def registered_again(here: Registered) -> AsyncIterator[Registry[str]]:
    """A registry of a process that knows the new topic."""
    log = KafkaLog(here.place.url, SETTINGS)
    await log.start()
    yield Registry(log, here.table, str.encode, CLOCK, delay=0)
    await log.close()
