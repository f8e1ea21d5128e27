"""What Faust's streams can do besides `async for`, over the log."""

import asyncio
from typing import Any

import faust
import pytest

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.schemas import topics
from tests.engine.runtime.running import (
    FAST,
    HandClock,
    NoWait,
    append,
    committed,
    everything,
    holds,
    run_until,
    values,
)

IN = TopicPartition("in", 0)


class Order(faust.Record):
    """A model as users write them."""

    account: str
    amount: int


async def test_take_gives_what_is_there_up_to_its_limit(log: EmbeddedLog) -> None:
    """Old records are not waited for; each buffer is of one partition, in order."""
    app = App("g", log, runtime=FAST)
    taken: list[list[Any]] = []

    @app.agent(app.topic("in"))
    async def take(stream: Any) -> None:
        async for buffer in stream.take(4, within=3600):
            taken.append(list(buffer))

    await append(log, "in", *[b"%d" % n for n in range(10)])
    await run_until(app, committed(log, "g", "in"))

    assert taken == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_take_waits_for_fresh_records(log: EmbeddedLog) -> None:
    """A buffer that is not full is given out when its time is over, with what came in the meantime or without."""
    clock = HandClock(1_700_000_000_000)
    app = App("g", log, runtime=FAST, clock=clock)
    topic = app.topic("in")
    taken: list[list[Any]] = []
    too_early: list[list[Any]] = []

    @app.agent(topic)
    async def take(stream: Any) -> None:
        async for buffer in stream.take(100, within=10):
            taken.append(list(buffer))

    @app.task
    async def send() -> None:
        sent = [await topic.send(key=b"k", value=number) for number in range(20)]
        await asyncio.gather(*sent)
        clock.advance(9_999)
        await asyncio.sleep(0.01)
        too_early.extend(taken)
        clock.advance(1)

    await run_until(app, holds(lambda: sum(map(len, taken)) == 20))

    assert too_early == []
    assert [number for buffer in taken for number in buffer] == list(range(20))


async def test_take_that_raises_comes_again_and_then_in_halves(log: EmbeddedLog) -> None:
    """Only the culprit is dead-lettered, and what was sent for the buffers that failed is not there."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out", value_serializer="raw")
    offered: list[list[Any]] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def take(stream: Any) -> None:
        async for buffer in stream.take(8, within=1):
            offered.append(list(buffer))
            for value in buffer:
                await out.send(value=value)
                if value == b"5":
                    raise ValueError("five")

    await append(log, "in", *[b"%d" % n for n in range(8)])
    await run_until(app, committed(log, "g", "in"))

    assert [len(buffer) for buffer in offered] == [8, 8, 8, 4, 4, 2, 1, 1, 2]
    assert await values(log, "out") == [b"%d" % n for n in range(8) if n != 5]
    assert await values(log, topics.DEAD_LETTERS) == [b"5"]


async def test_other_takes(log: EmbeddedLog) -> None:
    """take_events gives events, take_with_timestamp adds the append time, noack_take waits for acknowledgements."""
    app = App("g", log, runtime=FAST)
    seen: dict[str, Any] = {}

    @app.agent(app.topic("in"))
    async def with_events(stream: Any) -> None:
        async for events in stream.take_events(2, within=1):
            seen["events"] = [event.message.offset for event in events]

    @app.agent(app.topic("in"))
    async def with_timestamp(stream: Any) -> None:
        async for buffer in stream.take_with_timestamp(2, within=1, timestamp_field_name="at"):
            seen["timestamps"] = buffer

    @app.agent(app.topic("in"))
    async def by_hand(stream: Any) -> None:
        async for events in stream.noack_take(2, within=1):
            for event in events:
                event.ack()
            seen["noack"] = len(events)

    await append(log, "in", b'{"n": 1}', b'{"n": 2}')
    await run_until(app, committed(log, "g", "in"))

    assert seen["events"] == [0, 1]
    assert seen["timestamps"] == [{"n": 1, "at": 1_700_000_000.0}, {"n": 2, "at": 1_700_000_000.0}]
    assert seen["noack"] == 2


async def test_group_by_sends_the_events_through_a_topic_of_their_own(log: EmbeddedLog) -> None:
    """The agent gets them with the new key; an agent that raises reads on where it was, grouped still."""
    app = App("g", log, runtime=FAST, clock=NoWait(), topic_partitions=2)
    seen: list[tuple[bytes, int]] = []
    tries: list[int] = []

    @app.agent(app.topic("in", value_type=Order), name="grouping")
    async def grouping(stream: Any) -> None:
        async for key, order in stream.group_by(Order.account).items():
            tries.append(0)
            if len(tries) < 3:
                raise RuntimeError("not yet")
            seen.append((key, order.amount))

    orders = [b'{"account": "%s", "amount": %d}' % (name, n) for n, name in enumerate([b"anna", b"bert"] * 5)]
    await append(log, "in", *orders)
    await run_until(app, holds(lambda: len(seen) == 10))

    assert sorted(seen, key=lambda each: each[1]) == [(b"anna" if n % 2 == 0 else b"bert", n) for n in range(10)]
    repartitioned = await everything(log, "grouping-in-Order.account-repartition")
    assert len(repartitioned) == 10
    assert await values(log, topics.DEAD_LETTERS) == []


async def test_error_in_the_key_function_is_not_swallowed(log: EmbeddedLog) -> None:
    """Faust logs it and skips the event; here the event has its tries and is dead-lettered."""
    app = App("g", log, runtime=FAST, clock=NoWait())

    def key(value: dict[str, str]) -> str:
        return value["account"]

    @app.agent(app.topic("in"))
    async def grouping(stream: Any) -> None:
        async for _ in stream.group_by(key, name="account"):
            pass

    await append(log, "in", b'{"account": "anna"}', b"{}")
    await run_until(app, committed(log, "g", "in"))

    assert await values(log, topics.DEAD_LETTERS) == [b"{}"]


async def test_filtered_events_are_done(log: EmbeddedLog) -> None:
    """They never reach the agent, hold no position back, and a filter counts once however often the agent raised."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    seen: list[int] = []
    looked_at: list[int] = []
    tries: list[int] = []

    def even(value: int) -> bool:
        looked_at.append(value)
        return value % 2 == 0

    @app.agent(app.topic("in"))
    async def evens(stream: Any) -> None:
        async for value in stream.filter(even):
            tries.append(0)
            if len(tries) < 3:
                raise RuntimeError("not yet")
            seen.append(value)

    await append(log, "in", *[b"%d" % n for n in range(6)])
    await run_until(app, committed(log, "g", "in"))

    assert seen == [0, 2, 4]
    assert looked_at == [0, 0, 0, 1, 2, 3, 4, 5]


async def test_through_and_echo_forward_with_the_position(log: EmbeddedLog) -> None:
    """What a stream forwards is staged like any send."""
    app = App("g", log, runtime=FAST)
    seen: list[int] = []

    @app.agent(app.topic("in"))
    async def both(stream: Any) -> None:
        async for value in stream.echo("out").through("between"):
            seen.append(value)

    await append(log, "in", b"1", b"2")
    await run_until(app, holds(lambda: len(seen) == 2))

    assert seen == [1, 2]
    assert await values(log, "between") == [b"1", b"2"]
    assert await values(log, "out") == [b"1", b"2"]


async def test_yielded_values_go_to_the_sinks_once(log: EmbeddedLog) -> None:
    """A sink that raises has the event offered again; a topic as sink gets only what was done in the end."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    out = app.topic("out")
    called: list[Any] = []

    async def flaky(value: Any) -> None:
        called.append(value)
        if len(called) < 3:
            raise RuntimeError("not yet")

    @app.agent(app.topic("in"), sink=[out, flaky])
    async def double(stream: Any) -> Any:
        async for value in stream:
            yield value * 2

    await append(log, "in", b"1", b"2")
    await run_until(app, committed(log, "g", "in"))

    assert called == [2, 2, 2, 4]
    assert await values(log, "out") == [b"2", b"4"]


async def test_agent_of_an_agent_and_of_a_channel(log: EmbeddedLog) -> None:
    """An agent is called by its `send`, through its own topic; one on a channel through memory, with tries too."""
    app = App("g", log, runtime=FAST, clock=NoWait(), topic_partitions=1)
    seen: list[Any] = []
    tries: list[int] = []

    @app.agent(app.channel())
    async def last(stream: Any) -> None:
        async for value in stream:
            tries.append(value)
            if len(tries) < 3:
                raise RuntimeError("not yet")
            seen.append(value)

    @app.agent()
    async def middle(stream: Any) -> None:
        async for value in stream:
            await last.send(value=value)

    @app.agent(app.topic("in"))
    async def first(stream: Any) -> None:
        async for value in stream:
            await middle.cast(value)

    await append(log, "in", b"1", b"2")
    await run_until(app, holds(lambda: len(seen) == 2))

    assert seen == [1, 2]
    assert tries == [1, 1, 1, 2]


async def test_stream_in_a_task(log: EmbeddedLog) -> None:
    """A stream outside of any agent is taken up though it comes late; left, it holds nothing back any more."""
    app = App("g", log, runtime=FAST)
    seen: list[int] = []

    @app.agent(app.topic("in"))
    async def reads(stream: Any) -> None:
        async for _ in stream:
            pass

    @app.task
    async def two() -> None:
        async for value in app.topic("late").stream():
            seen.append(value)
            if len(seen) == 2:
                break

    await log.create_topics([TopicSpec("late", 1)])
    await append(log, "late", b"1", b"2", b"3", b"4")
    await append(log, "in", b"1")
    await run_until(app, committed(log, "g", "late", "in"))

    assert seen == [1, 2]


async def test_iterating_a_topic_gives_events_to_acknowledge(log: EmbeddedLog) -> None:
    """`async with event` is done with it at the end of the block."""
    app = App("g", log, runtime=FAST)
    seen: list[Any] = []

    @app.task
    async def read() -> None:
        async for event in app.topic("in"):
            async with event:
                seen.append(event.value)

    await append(log, "in", b"1", b"2")
    await run_until(app, committed(log, "g", "in"))

    assert seen == [1, 2]


@pytest.mark.parametrize("options", [{"isolated_partitions": True}, {"sink": ["x"]}])
async def test_what_cannot_work_ends_the_app(log: EmbeddedLog, options: dict[str, Any]) -> None:
    """Isolated partitions are refused; a function that yields nothing can have no sinks, says Faust."""
    app = App("g", log, runtime=FAST)

    @app.agent(app.topic("in"), **options)
    async def reads(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises((ConfigError, faust.exceptions.ImproperlyConfigured)):
        await run_until(app, holds(lambda: False))


async def test_child_of_a_handler_may_send_after_it(log: EmbeddedLog) -> None:
    """A task that outlives its event sends on its own account, at once."""
    app = App("g", log, runtime=FAST)
    out = app.topic("out", value_serializer="raw")
    children: list[asyncio.Task[None]] = []
    gone_on = asyncio.Event()

    async def child(value: bytes) -> None:
        await gone_on.wait()
        await out.send(value=value)

    @app.agent(app.topic("in", value_serializer="raw"))
    async def parent(stream: Any) -> None:
        async for value in stream:
            if value == b"1":
                children.append(asyncio.create_task(child(value)))
            else:
                gone_on.set()

    await append(log, "in", b"1", b"2")
    await run_until(app, committed(log, "g", "in"))
    await asyncio.gather(*children)

    assert await values(log, "out") == [b"1"]
