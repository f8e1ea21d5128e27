"""Time that passes for an agent that reads several topics."""

from collections.abc import AsyncIterator, Mapping

import pytest

from headrace.engine.app import App
from headrace.engine.batch import Batch, Idle
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.runtime.settings import RuntimeSettings
from tests.engine.runtime.running import HandClock, append, committed, run_until, values

T0 = 1_700_000_000_000
FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.01)
TOPICS = ("readings", "commands", "silences", "devices", "timers")


class CountingLog(EmbeddedLog):
    """Counts what the group commits."""

    commits = 0

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        self.commits += transaction.group == "g"
        return await super().commit(transaction)


class Waiting:
    """Is told of time that passes; sends something after `says_after` seconds of it."""

    name = "waiting"
    topic = TOPICS[0]
    topics = TOPICS
    tables = ()
    idle_timeout: float | None = 5.0

    def __init__(self, says_after: float = float("inf")) -> None:
        self.says_after = says_after
        self.idles: list[tuple[str, Idle]] = []

    def is_waiting(self, partition: int) -> bool:
        return True

    def process(self, batch: Batch) -> None:
        if batch.idle is None:
            return
        self.idles.append((batch.topic, batch.idle))
        if self.passed >= self.says_after:
            batch.on_finish(self._say_no_more)
            batch.send_records("out", Records([b"k"], [b"late"], [batch.idle.now_ms]), partition=0)

    @property
    def passed(self) -> float:
        """Seconds that it was told of."""
        return sum(idle.elapsed_ms for _, idle in self.idles) / 1000

    def _say_no_more(self) -> None:
        self.says_after = float("inf")


class WaitingOnTwo(Waiting):
    """Wants to know of the silence of a second topic, too."""

    idle_topics = TOPICS[:2]

    @property
    def passed(self) -> float:
        """Seconds that it was told of on each of the two."""
        return min(self.passed_on(topic) for topic in self.idle_topics)

    def passed_on(self, topic: str) -> float:
        """Seconds that it was told of on one."""
        return sum(idle.elapsed_ms for each, idle in self.idles if each == topic) / 1000


@pytest.fixture
async def log() -> AsyncIterator[CountingLog]:
    """In memory, with one partition of each topic."""
    log = CountingLog(MEMORY)
    await log.create_topics([TopicSpec(name, 1) for name in (*TOPICS, "out")])
    yield log
    await log.close()


async def run(log: CountingLog, agent: Waiting, seconds: float) -> float:
    """Until the agent was told of so many seconds; how many passed."""
    clock = HandClock(T0)
    app = App("g", log, clock=clock, runtime=FAST)
    app.add([agent])

    async def passed() -> bool:
        clock.advance(1_000)
        return agent.passed >= seconds

    await run_until(app, passed)
    return (clock.now_ms() - T0) / 1000


async def test_time_passes_once_for_an_agent_of_several_topics(log: CountingLog) -> None:
    """On the first of its topics, every `idle_timeout`; as it does nothing on that occasion, nothing is committed."""
    agent = Waiting()

    total = await run(log, agent, 30)

    assert {topic for topic, _ in agent.idles} == {"readings"}
    assert agent.passed <= total
    assert min(idle.elapsed_ms for _, idle in agent.idles) >= 5_000
    assert log.commits == 0


async def test_what_comes_of_time_is_committed(log: CountingLog) -> None:
    """Once, though the position of the partition stays."""
    await append(log, "readings", b"1")

    await run(log, Waiting(says_after=10), 30)

    assert await values(log, "out") == [b"late"]
    assert await committed(log, "g", *TOPICS)()
    assert log.commits <= 2  # one for the record, unless it was that of what came late


async def test_time_passes_on_each_topic_that_an_agent_names(log: CountingLog) -> None:
    """And on no other; each counts its own silence."""
    agent = WaitingOnTwo()

    total = await run(log, agent, 15)

    assert {topic for topic, _ in agent.idles} == set(TOPICS[:2])
    assert all(15 <= agent.passed_on(topic) <= total for topic in TOPICS[:2])
