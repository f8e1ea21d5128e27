"""What every sink promises, whatever is on its other side. A subclass brings both as the fixture `world`.

The suite drives sinks as headrace does, through `SinkRunner` on an embedded log, and by hand where a moment matters.
It compares what the other side then holds with what `sink_traffic.newest` works out, and with other ways there.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.dead_letters import ORIGIN_OFFSET
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected, RetryLater
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Record, Records
from headrace.engine.sink import PositionMoved, Refused, Sink
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from tests.contract.sink_traffic import (
    PARTITIONS,
    Sent,
    append,
    by_key,
    fetched,
    newest,
    of_topics,
    reading,
    records,
    rollup,
    traffic,
)
from tests.contract.sink_world import GatedSink, SinkWorld, ends_of, run_to_end, runner_of, until

P0 = TopicPartition(topics.READINGS, 0)
#: More requests than any sink needs for a small write.
MOST_REQUESTS = 60


class SinkContract:
    """Tests of the promises."""

    @pytest.fixture
    async def log(self) -> AsyncIterator[EmbeddedLog]:
        """A log with every topic that sinks read, empty."""
        log = EmbeddedLog(MEMORY)
        dotted = [name for name in vars(topics).values() if isinstance(name, str) and "." in name]
        names = [*dotted, topics.RULES]
        await log.create_topics([*(TopicSpec(name, PARTITIONS) for name in names), *SinkRunner.topic_specs()])
        yield log
        await log.close()

    @pytest.fixture
    async def sink(self, world: SinkWorld, log: EmbeddedLog) -> AsyncIterator[Sink]:
        """One that is open and has read its positions."""
        sink = await opened(world, log)
        yield sink
        await sink.close()

    # Order and idempotence

    async def test_the_newest_of_each_key(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """All of the log arrives, and late records hide no newer ones."""
        sink = await world.make(log)
        sent = traffic(sink.topics)
        await append(log, sent)

        runner = await run_to_end(log, sink)

        assert runner.statistics().written == len(sent)
        assert by_key(await world.newest()) == by_key(newest(sent))

    @pytest.mark.parametrize("max_records", [1, 7])
    async def test_batches_change_nothing(self, world: SinkWorld, log: EmbeddedLog, max_records: int) -> None:
        """In whatever batches the records come, the other side ends up the same."""
        sink = await world.make(log)
        await append(log, traffic(sink.topics, devices=3, rounds=6))
        await run_to_end(log, sink, 1000)
        expected = await world.everything()
        await world.empty()

        await run_to_end(log, await world.make(log), max_records)

        assert await world.everything() == expected

    async def test_an_older_record_after_a_newer_one(self, world: SinkWorld, sink: Sink) -> None:
        """It does not take its place, in the same write or in a later one; a newer one does."""
        new, old, newer = reading("a", 10, 1), reading("a", 20, 2), reading("a", 5, 3)

        await sink.write([fetched([new, old])])
        await sink.write([fetched([reading("a", 30, 4)], 2)])
        in_between = await world.newest()
        await sink.write([fetched([newer], 3)])

        assert in_between == newest([new])
        assert await world.newest() == newest([newer])

    async def test_the_whole_log_again(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """Records that come again leave everything as it was."""
        await self._again(world, log, lambda end: 0)

    async def test_a_part_of_the_log_again(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """So do those since the middle, in batches that begin elsewhere."""
        await self._again(world, log, lambda end: end // 2)

    async def _again(self, world: SinkWorld, log: EmbeddedLog, back_to: Any) -> None:
        sink = await world.make(log)
        sent = traffic(sink.topics)
        await append(log, sent)
        await run_to_end(log, sink)
        before = await world.everything()

        await world.rewind({target: back_to(end) for target, end in (await ends_of(log, sink)).items()})
        runner = await run_to_end(log, await world.make(log), 5)

        assert runner.statistics().written > len(sent) // 3
        assert by_key(await world.newest()) == by_key(newest(sent))
        if world.repeatable:
            assert await world.everything() == before
        else:
            assert world.not_repeatable

    # Refusals

    async def test_a_write_is_all_or_nothing(self, world: SinkWorld, sink: Sink) -> None:
        """With a refused record in a write nothing of it is stored; without it, all of it, by the same sink."""
        good = [reading("a", 10, 1), reading("b", 10, 2)]
        mixed = [fetched([good[0], bad(world), good[1]])]
        before = await world.everything()

        if world.refused is None:
            await sink.write(mixed)
        else:
            with pytest.raises(Refused):
                await sink.write(mixed)
            assert await world.everything() == before
            await sink.write([fetched(good)])

        assert await world.newest() == newest(good)

    @pytest.mark.parametrize("places", [[0], [20], [3, 4, 9], range(21)], ids=str)
    async def test_refused_records(self, world: SinkWorld, log: EmbeddedLog, places: Sequence[int]) -> None:
        """They are dead-lettered alone, each once; all others are stored, whether the batch began or ended with one.

        A sink that refuses nothing dead-letters nothing, and passes over what it cannot use.
        """
        sent = [bad(world, "d") if at in places else reading("d", 60 - at, at) for at in range(21)]
        await append(log, sent)

        runner = await run_to_end(log, await world.make(log), 100)
        again = await run_to_end(log, await world.make(log))

        expected = [] if world.refused is None else list(places)
        letters = await dead_letters(log)
        assert runner.statistics().dead_lettered == len(expected)
        assert again.statistics().written == again.statistics().dead_lettered == 0
        assert sorted(int(letter.headers[ORIGIN_OFFSET]) for letter in letters) == expected
        assert {letter.value for letter in letters} <= {bad(world)[2]}
        assert await world.newest() == newest(each for each in sent if each[2] != bad(world)[2])

    async def test_what_cannot_be_read(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """No bytes, in whatever topic, stop a sink: what it does not refuse it passes over, and goes on."""
        sink = await world.make(log)
        good = [reading("a", 10, 1), rollup("a", 1)]
        hostile = [b"", b"\xff\x00", b"null", b"[]", b"{}", b'{"device_id":1,"data":[]}', b"[" * 5_000, b'"\\u0000"']
        await append(log, [(topic, "a", value) for topic in sink.topics for value in hostile])
        await append(log, of_topics(sink.topics, good))

        await run_to_end(log, sink)

        found = await world.newest()
        assert {key: found.get(key) for key in newest(of_topics(sink.topics, good))} == newest(
            of_topics(sink.topics, good)
        )

    # Outages

    async def test_the_other_side_is_away(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """A sink that cannot reach it tries until it can, and stores then what has come meanwhile."""
        sink = await world.make(log)
        sent = traffic(sink.topics)
        await append(log, sent[:20])
        await world.cut(0)
        runner, stop = runner_of(log, sink), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.run(stop))
            await until(lambda: runner.statistics().retries >= 2)
            away = runner.statistics()
            await append(log, sent[20:])
            await world.mend()
            await until(lambda: runner.statistics().written == len(sent))
            stop.set()

        assert (away.state, away.written) == ("retrying", 0)
        assert away.last_error
        assert runner.statistics().state == "running"
        assert by_key(await world.newest()) == by_key(newest(sent))

    async def test_cut_at_every_request(self, world: SinkWorld, log: EmbeddedLog, sink: Sink) -> None:
        """Wherever in a write the other side goes away, it has all of the write or nothing, and says which."""
        offset, sent = 0, []
        for requests in range(MOST_REQUESTS):
            more = [reading(f"d{number}", 100 - requests, requests * 3 + number) for number in range(3)]
            sent += more
            part = fetched(more, offset)
            await append_to(log, more)
            await world.cut(requests)
            try:
                await sink.write([part])
                returned, whole = True, not world.is_cut()
            except (Disconnected, RetryLater):
                returned = whole = False
            await world.mend()
            stored = await reopened(sink, P0)
            assert stored == part.next_offset or (stored == part.base_offset and not returned)
            assert (await world.newest() == newest(sent)) == (stored == part.next_offset)
            if stored == part.base_offset:
                await sink.write([part])
            offset += len(more)
            if whole:
                break

        assert whole
        assert await world.newest() == newest(sent)
        through_cuts = await world.everything()
        await world.empty()
        await run_to_end(log, await world.make(log))
        assert await world.everything() == through_cuts

    # Resuming

    async def test_a_new_process_goes_on(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """It takes the positions from the other side, and only what is new."""
        sink = await world.make(log)
        sent = traffic(sink.topics)
        await append(log, sent[:30])
        await run_to_end(log, sink)
        await append(log, sent[30:])

        runner = await run_to_end(log, await world.make(log))

        assert runner.statistics().written == len(sent) - 30
        assert by_key(await world.newest()) == by_key(newest(sent))

    async def test_restored_to_an_earlier_state(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """A running sink notices that the other side was replaced by a backup, and writes again what it lost."""
        sink = await world.make(log)
        sent = traffic(sink.topics)
        runner, stop = runner_of(log, sink), asyncio.Event()
        await append(log, sent[:20])
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.run(stop))
            await until(lambda: runner.statistics().written == 20)
            await world.save()
            await append(log, sent[20:-1])
            await until(lambda: runner.statistics().written == len(sent) - 1)
            await world.restore()
            await append(log, sent[-1:])
            await until(lambda: runner.statistics().written >= 2 * len(sent) - 21)
            stop.set()
        restored = await world.everything()
        await world.empty()
        await run_to_end(log, await world.make(log))

        assert restored == await world.everything()
        assert by_key(await world.newest()) == by_key(newest(sent))

    async def test_a_stale_process_cannot_write(self, world: SinkWorld, log: EmbeddedLog, sink: Sink) -> None:
        """Who wrote first goes on; the other one changes nothing, and can continue once it asked for the positions."""
        other = await opened(world, log)
        first, second = [reading("a", 10, 1)], [reading("a", 9, 2)]
        await append_to(log, first + second)
        await sink.write([fetched(first)])
        before = await world.everything()

        with pytest.raises(PositionMoved):
            await other.write([fetched([reading("a", 1, 3)])])

        assert await world.everything() == before
        assert await reopened(other, P0) == 1
        await other.write([fetched(second, 1)])
        with pytest.raises(PositionMoved):
            await sink.write([fetched([reading("a", 1, 4)], 1)])
        assert await world.newest() == newest(first + second)
        await other.close()

    # Schema drift

    async def test_what_the_schemas_gain(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """New measures and types of devices, and fields that a newer headrace adds, are stored or passed over."""
        sink = await world.make(log)
        sent = of_topics(
            sink.topics,
            [
                reading("a", 30, 1),
                reading("a", 20, 2, measures={"co2": 1.0, "ozone 'x\";--": 2.5}),
                reading("b", 20, 3, device_type="invented-tomorrow", measures={"flux": -1e-300}),
                reading("c", 20, 4, extra={"door": "open", "nested": {"a": [1, None, "ü"]}}, added_later={"x": 1}),
                rollup("a", 1, added_later=[1, 2]),
                rollup("b", 1, device_type="invented-tomorrow", measures={}),
            ],
        )
        await append(log, sent)

        runner = await run_to_end(log, sink)

        assert runner.statistics().dead_lettered == 0
        assert by_key(await world.newest()) == by_key(newest(sent))

    async def test_records_of_an_older_version(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """Rollups from before there were kinds of windows and corrections are those of tumbling windows."""
        sink = await world.make(log)
        if topics.ROLLUPS not in sink.topics:
            pytest.skip("this sink reads no rollups")
        topic, device, value = rollup("a", 1)
        document = orjson.loads(value)
        for name in ("window", "kind", "revision"):
            del document[name]
        sent = [(topic, device, orjson.dumps(document))]
        await append(log, sent)

        runner = await run_to_end(log, sink)

        assert runner.statistics().dead_lettered == 0
        assert await world.newest() == newest(sent)

    # Stopping

    async def test_a_clean_stop_finishes_the_write(self, world: SinkWorld, log: EmbeddedLog) -> None:
        """Told to stop in the middle of a write, the runner finishes it and begins no other."""
        sink = GatedSink(await world.make(log))
        sent = [reading("a", 100 - number, number) for number in range(40)]
        for each in sent:
            await append(log, [each])
        runner, stop = runner_of(log, sink, 10), asyncio.Event()
        task = asyncio.create_task(runner.run(stop))
        await sink.entered.wait()

        stop.set()
        sink.gate.set()
        await task

        assert sink.done == 1
        written = runner.statistics().written
        assert 0 < written < len(sent)
        assert await world.newest() == newest(sent[:written])
        positions = await log.positions(sink.name, topics.READINGS)
        assert sum(positions.values()) == written
        assert (await run_to_end(log, await world.make(log))).statistics().written == len(sent) - written

    @pytest.mark.parametrize("turns", [0, 1, 3])
    async def test_cancelled_in_a_write(self, world: SinkWorld, log: EmbeddedLog, turns: int) -> None:
        """Nothing is lost or stored twice by a sink that is cancelled, as on a second Ctrl-C."""
        sink = GatedSink(await world.make(log))
        sent = traffic(sink.topics)
        await append(log, sent)
        task = asyncio.create_task(runner_of(log, sink).run(asyncio.Event()))
        await sink.entered.wait()
        sink.gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancel_and_wait(task)

        await run_to_end(log, await world.make(log))

        through_cancel = await world.everything()
        await world.empty()
        await run_to_end(log, await world.make(log))
        assert through_cancel == await world.everything()
        assert by_key(await world.newest()) == by_key(newest(sent))

    async def test_closing(self, world: SinkWorld, sink: Sink) -> None:
        """A sink may be closed twice, and while the other side is away; it can be opened again."""
        await world.cut(0)
        await sink.close()
        await sink.close()
        with pytest.raises((Disconnected, RetryLater)):
            await sink.write([fetched([reading("a", 10, 1)])])
        await world.mend()

        assert await reopened(sink, P0) == 0
        await sink.write([fetched([reading("a", 10, 1)])])
        assert await world.newest() == newest([reading("a", 10, 1)])

    # Sizes

    async def test_nothing_but_a_position(self, world: SinkWorld, log: EmbeddedLog, sink: Sink) -> None:
        """A batch without records moves the position, as over markers of transactions."""
        nothing = Records([], [], [])
        await append_to(log, [reading("b", 10, number) for number in range(9)])
        await sink.write([Fetched(P0, 0, 5, nothing), Fetched(P0, 5, 7, nothing)])
        await sink.write([fetched([reading("a", 10, 1)], 7), Fetched(P0, 8, 9, nothing)])

        other = await opened(world, log)
        assert (await other.positions([P0]))[P0] == 9
        assert await world.newest() == newest([reading("a", 10, 1)])
        await other.close()

    async def test_a_large_batch(self, world: SinkWorld, sink: Sink) -> None:
        """As many records as a runner gives at once, of many devices, in many parts."""
        sent = [reading(f"d{number % 3_000}", 100 - number / 1_000, number) for number in range(16_384)]
        parts = [fetched(sent[start : start + 512], start) for start in range(0, len(sent), 512)]

        await sink.write(parts)

        assert await world.newest() == newest(sent)

    async def test_a_large_record(self, world: SinkWorld, sink: Sink) -> None:
        """A megabyte in one value, which the log takes."""
        sent = [reading("a", 10, 1, extra={"text": "ü" * 500_000})]

        await sink.write([fetched(sent)])

        assert await world.newest() == newest(sent)


def bad(world: SinkWorld, device: str = "a") -> Sent:
    """A record that the sink refuses, or cannot use."""
    assert world.refused is not None or world.refuses_nothing
    return topics.READINGS, device, world.refused or b"{not a reading"


async def opened(world: SinkWorld, log: EmbeddedLog) -> Sink:
    """A sink that has read its positions."""
    sink = await world.make(log)
    await sink.open()
    await sink.positions(list(await ends_of(log, sink)))
    return sink


async def reopened(sink: Sink, target: TopicPartition) -> int:
    """Open again as the runner does; the stored position."""
    await sink.open()
    return (await sink.positions([target]))[target]


async def append_to(log: EmbeddedLog, sent: Sequence[Sent]) -> None:
    """Append to the first partition: a log is as long as what writes by hand say that they have of it."""
    await log.commit(Transaction(appends=[Append(P0, records(sent))]))


async def dead_letters(log: EmbeddedLog) -> list[Record]:
    """All of `telemetry.dlq`."""
    found: list[Record] = []
    for target in await log.end_offsets(topics.DEAD_LETTERS):
        got = await log.read(target, 0, 1_000)
        found += list(got.records) if got else []
    return found
