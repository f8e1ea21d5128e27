"""Agents that want a batch in two, in an app on the embedded log."""

import pytest
from structlog.testing import capture_logs

from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.clock import SystemClock
from headrace.engine.errors import CutBatch
from headrace.engine.log import Log
from headrace.engine.runtime.batches import FIRST_BACKOFF
from headrace.schemas import topics
from tests.engine.runtime.cutting import Cutting, behind_rules
from tests.engine.runtime.running import FAST, NoWait, append, committed, everything, run_until, values

MESSAGES = [b"1", b"rule a", b"2", b"3", b"rule b", b"rule c", b"4", b"rule d"]


class RecordingClock(SystemClock):
    """Remembers the longest wait."""

    longest = 0.0

    async def sleep(self, delay: float) -> None:
        self.longest = max(self.longest, delay)
        await super().sleep(delay)


class Watching:
    """Reads the same records as others."""

    name = "watching"
    topic = "in"
    tables = ()

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def process(self, batch: Batch) -> None:
        self.sizes.append(len(batch))


class CutsAt(Watching):
    """Wants its batch cut where that cannot be."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row = row

    def process(self, batch: Batch) -> None:
        super().process(batch)
        raise CutBatch(self.row)


async def test_a_batch_is_cut_where_its_agent_says(log: Log) -> None:
    """Once, in order, at once and without a word; another agent has the same records whole."""
    clock = RecordingClock()
    app = App("g", log, clock=clock, runtime=FAST)
    cutting, watching = Cutting(), Watching()
    app.add([cutting, watching])
    await append(log, "in", *MESSAGES)

    with capture_logs() as logged:
        await run_until(app, committed(log, "g", "in"))

    assert await values(log, "out") == behind_rules(MESSAGES)
    assert cutting.sizes == [1, 3, 1, 2, 1]
    assert watching.sizes == [len(MESSAGES)]
    assert clock.longest < FIRST_BACKOFF
    assert app.metrics.value("headrace_retries_total", agent="cutting") == 0
    assert app.metrics.value("headrace_agent_records_total", agent="cutting") == len(MESSAGES)
    assert [each for each in logged if each["log_level"] != "debug" and "agent" in each] == []
    assert await everything(log, topics.DEAD_LETTERS) == []


@pytest.mark.parametrize("row", [-1, 0, 1])
async def test_a_cut_that_leaves_nothing_is_a_failure(log: Log, row: int) -> None:
    """The record is offered again like after any error, then dead-lettered."""
    app = App("g", log, clock=NoWait(), runtime=FAST)
    agent = CutsAt(row)
    app.add([agent])
    await append(log, "in", b"1")

    await run_until(app, committed(log, "g", "in"))

    assert agent.sizes == [1, 1, 1]
    assert app.metrics.value("headrace_retries_total", agent="watching") == 2
    (dead,) = await everything(log, topics.DEAD_LETTERS)
    assert any(b"CutBatch" in value for value in dead.headers.values())
