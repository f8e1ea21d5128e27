"""Agents that go event by event: what is done when, what is staged, what happens when they raise."""

import asyncio
from typing import Any

import faust
import pytest

from headrace.engine import dead_letters
from headrace.engine.app import App
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import BadRecord, ConfigError
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.engine.runtime.batches import Batches
from headrace.schemas import topics
from tests.engine.runtime.running import FAST, NoWait, append, committed, everything, holds, run_until, values

IN = TopicPartition("in", 0)


class Reading(faust.Record):
    """A model as users write them."""

    device: str
    celsius: float


async def test_agent_gets_events_with_value_key_and_position(log: EmbeddedLog) -> None:
    """A stream yields decoded values; the event has key, offset and append time (seconds)."""
    app = App("g", log, runtime=FAST)
    seen: list[Any] = []

    @app.agent(app.topic("in", key_type=str, value_type=Reading))
    async def look(stream: Any) -> None:
        async for event in stream.events():
            seen.append((event.value, event.key, event.message.offset, event.message.timestamp))
            assert faust.current_event() is event

    await append(log, "in", b'{"device": "d", "celsius": 1.5}')
    await run_until(app, committed(log, "g", "in"))

    assert seen == [(Reading(device="d", celsius=1.5), "k", 0, 1_700_000_000.0)]


async def test_event_counts_as_done_when_the_next_is_asked_for(log: EmbeddedLog) -> None:
    """The position does not pass an event, or what it sent, while its agent works on it; that event comes again."""
    first = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))
    out = first.topic("out", value_serializer="raw")
    in_hand: list[bytes] = []

    @first.agent(first.topic("in", value_serializer="raw"))
    async def stuck(stream: Any) -> None:
        async for value in stream:
            await out.send(value=value)
            in_hand.append(value)
            if value == b"2":
                await asyncio.Event().wait()

    await append(log, "in", b"1", b"2", b"3")
    await run_until(first, holds(lambda: len(in_hand) == 2))

    assert (await log.positions("g", "in"))[IN] == 0
    assert await values(log, "out") == []

    second = App("g", log, runtime=FAST)
    again: list[bytes] = []

    @second.agent(second.topic("in", value_serializer="raw"))
    async def copy(stream: Any) -> None:
        async for value in stream:
            await second.send("out", value=value)
            again.append(value)

    await run_until(second, committed(log, "g", "in"))

    assert again == [b"1", b"2", b"3"]
    assert await values(log, "out") == [b"1", b"2", b"3"]


@pytest.mark.parametrize("soon", [False, True])
async def test_sends_of_an_event_that_raised_are_dropped(log: EmbeddedLog, soon: bool) -> None:
    """The event comes again to a fresh function, before the ones behind it; what it sent before counts once."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")
    offered: list[bytes] = []
    starts: list[int] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def flaky(stream: Any) -> None:
        starts.append(0)
        async for value in stream:
            offered.append(value)
            if soon:
                out.send_soon(value=value)
            else:
                await out.send(value=value)
            if value == b"2" and len(starts) < 3:
                raise RuntimeError("not yet")

    await append(log, "in", b"1", b"2", b"3")
    await run_until(app, committed(log, "g", "in"))

    assert offered == [b"1", b"2", b"2", b"2", b"3"]
    assert await values(log, "out") == [b"1", b"2", b"3"]
    assert await values(log, topics.DEAD_LETTERS) == []


async def test_event_is_a_fresh_one_at_every_try(log: EmbeddedLog) -> None:
    """What an agent did to the value before it raised is not there the next time."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    seen: list[dict[str, int]] = []

    @app.agent(app.topic("in"))
    async def spoil(stream: Any) -> None:
        async for value in stream:
            seen.append(dict(value))
            value["n"] += 1
            if len(seen) < 3:
                raise RuntimeError("not yet")

    await append(log, "in", b'{"n": 1}')
    await run_until(app, committed(log, "g", "in"))

    assert seen == [{"n": 1}] * 3


async def test_event_that_always_raises_is_dead_lettered_alone(log: EmbeddedLog) -> None:
    """Three tries; then its bytes go to the dead letters, with why and where from. Its neighbours are done in order."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")

    @app.agent(app.topic("in", value_serializer="raw"), name="picky")
    async def picky(stream: Any) -> None:
        async for value in stream:
            if value == b"13":
                raise ValueError("thirteen")
            await out.send(value=value)

    await append(log, "in", *[b"%d" % n for n in range(20)])
    await run_until(app, committed(log, "g", "in"))

    assert await values(log, "out") == [b"%d" % n for n in range(20) if n != 13]
    (letter,) = await everything(log, topics.DEAD_LETTERS)
    assert letter.value == b"13"
    assert letter.headers[dead_letters.REASON] == b"ValueError: thirteen"
    assert letter.headers[dead_letters.AGENT] == b"picky"
    assert letter.headers[dead_letters.ORIGIN_OFFSET] == b"13"


async def test_bad_record_is_dead_lettered_without_a_second_try(log: EmbeddedLog) -> None:
    """BadRecord says that trying again is of no use."""
    app = App("g", log, runtime=FAST)
    offered: list[bytes] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def strict(stream: Any) -> None:
        async for value in stream:
            offered.append(value)
            if value == b"bad":
                raise BadRecord(0, "it is bad")

    await append(log, "in", b"1", b"bad", b"3")
    await run_until(app, committed(log, "g", "in"))

    assert offered == [b"1", b"bad", b"3"]
    assert await values(log, topics.DEAD_LETTERS) == [b"bad"]


async def test_undecodable_record_is_dead_lettered(log: EmbeddedLog) -> None:
    """Broken JSON, and JSON that is not the model, never reach the agent and hold nothing up."""
    app = App("g", log, runtime=FAST)
    seen: list[float] = []

    @app.agent(app.topic("in", value_type=Reading))
    async def look(stream: Any) -> None:
        async for reading in stream:
            seen.append(reading.celsius)

    good = b'{"device": "d", "celsius": %d}'
    await append(log, "in", good % 1, b"{not json", b'{"device": "d"}', good % 2)
    await run_until(app, committed(log, "g", "in"))

    assert seen == [1, 2]
    letters = await everything(log, topics.DEAD_LETTERS)
    assert [letter.value for letter in letters] == [b"{not json", b'{"device": "d"}']
    assert b"ValueDecodeError" in letters[0].headers[dead_letters.REASON]


async def test_without_a_dead_letter_topic_bad_records_are_given_up() -> None:
    """They are logged and counted; the ones behind them are not held up."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec("in", 1)])
    app = App("g", log, runtime=FAST)
    seen: list[Any] = []

    @app.agent(app.topic("in"))
    async def look(stream: Any) -> None:
        async for value in stream:
            seen.append(value)

    await append(log, "in", b"{not json", b"1")
    await run_until(app, committed(log, "g", "in"))
    await log.close()

    assert seen == [1]
    assert app.metrics.value("headrace_dead_letters_total", agent=look.name, reason="bad_record") == 1
    assert app.metrics.value("headrace_agent_records_total", agent=look.name) == 2


async def test_broken_agent_stops_its_partition_visibly(log: EmbeddedLog) -> None:
    """An agent that fails on everything stops the partition after a hundred; the position stays where it was."""
    app = App("g", log, runtime=FAST, clock=NoWait())

    @app.agent(app.topic("in", value_serializer="raw"))
    async def broken(stream: Any) -> None:
        async for _ in stream:
            raise RuntimeError("always")

    await append(log, "in", *[b"%d" % n for n in range(300)])
    await run_until(app, holds(lambda: app.stopped_partitions))

    assert "100 events in a row" in app.stopped_partitions[IN]
    assert (await log.positions("g", "in"))[IN] == 0
    assert await values(log, topics.DEAD_LETTERS) == []


async def test_error_outside_of_any_event_ends_the_app(log: EmbeddedLog) -> None:
    """An agent that cannot begin is nothing that another try repairs."""
    app = App("g", log, runtime=FAST)

    @app.agent(app.topic("in"))
    async def cannot(stream: Any) -> None:
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        await run_until(app, holds(lambda: False))


async def test_agent_that_returns_ends_the_app(log: EmbeddedLog) -> None:
    """Nobody would read its topic any more; Faust says nothing and stands still."""
    app = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))

    @app.agent(app.topic("in"))
    async def done(stream: Any) -> None:
        async for _ in stream:
            break

    await append(log, "in", b"1")
    with pytest.raises(ConfigError, match="returned"):
        await run_until(app, holds(lambda: False))
    assert (await log.positions("g", "in"))[IN] == 0


async def test_actors_of_one_agent_share_the_events(log: EmbeddedLog) -> None:
    """With concurrency two events are in hand at once; one that raises is done again, and outputs keep the order."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")
    in_hand: set[bytes] = set()
    most, failed = 0, 0

    @app.agent(app.topic("in", value_serializer="raw"), concurrency=2)
    async def pair(stream: Any) -> None:
        nonlocal most, failed
        async for value in stream:
            in_hand.add(value)
            most = max(most, len(in_hand))
            await asyncio.sleep(0)
            await out.send(value=value)
            in_hand.discard(value)
            if value == b"7" and failed < 2:
                failed += 1
                raise RuntimeError("not yet")

    sent = [b"%d" % n for n in range(30)]
    await append(log, "in", *sent)
    await run_until(app, committed(log, "g", "in"))

    assert most == 2
    assert await values(log, "out") == sent


async def test_agents_on_events_and_on_batches_share_a_topic(log: EmbeddedLog) -> None:
    """Both get every record, and the position moves when both are done."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")
    tries: list[int] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def on_events(stream: Any) -> None:
        async for value in stream:
            await out.send(value=b"event " + value)

    @app.agent(app.batches("in"))
    async def on_batches(batches: Batches) -> None:
        async for batch in batches:
            for record in batch:
                batch.send("out", b"", b"batch " + (record.value or b""))
            tries.append(len(batch))
            if len(tries) < 3:
                raise RuntimeError("not yet")

    await append(log, "in", b"1", b"2")
    await run_until(app, committed(log, "g", "in"))

    assert tries == [2, 2, 2]
    assert sorted(await values(log, "out"), key=str) == [b"batch 1", b"batch 2", b"event 1", b"event 2"]


async def test_manual_acknowledgement_decides(log: EmbeddedLog) -> None:
    """In a stream without acks an event is done when it was acknowledged, not when the next is asked for."""
    app = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))
    held: list[Any] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def hold(stream: Any) -> None:
        async for event in stream.noack().events():
            held.append(event)

    await append(log, "in", b"1", b"2")

    async def acknowledged_one_by_one() -> bool:
        if len(held) < 2:
            return False
        held[0].ack()
        await asyncio.sleep(0.05)
        assert (await log.positions("g", "in"))[IN] == 0
        held[1].ack()
        return True

    await run_until(app, acknowledged_one_by_one)
    assert await committed(log, "g", "in")()
