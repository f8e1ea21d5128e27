"""Partitions taken away from agents that go event by event, and how much of one they get at once."""

import asyncio
from typing import Any

from headrace.engine.app import App
from headrace.engine.log import Fetched, Log, Member, TopicPartition, TopicSpec
from headrace.engine.records import Records
from headrace.engine.runtime.conductor import FIRST_PIECE, BatchConductor
from headrace.engine.runtime.event_table_manager import EventTableManager
from tests.engine.runtime.running import FAST, append, committed, holds, run_until, table, values

IN = TopicPartition("in", 0)


async def test_partition_that_is_taken_away_and_comes_back_is_counted_once(log: Log) -> None:
    """What the agent has in hand then has no effect, whatever it still does; everything uncommitted is done anew."""
    app = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.02, "commit_interval": 60.0}))
    counts = app.Table("counts", default=int)
    in_hand, go_on = asyncio.Event(), asyncio.Event()
    refused: list[str] = []

    @app.agent(app.topic("in", value_serializer="raw"))
    async def count(stream: Any) -> None:
        async for value in stream:
            counts["n"] += 1
            await app.send("out", value=value, value_serializer="raw")
            if value == b"2" and not go_on.is_set():
                in_hand.set()
                await go_on.wait()
                await app.send("out", value=b"late", value_serializer="raw")
                try:
                    counts["n"] += 1
                except Exception as error:
                    refused.append(str(error))
                    raise

    @app.task
    async def rebalance() -> None:
        await in_hand.wait()
        consumer: Any = app.consumer
        await consumer.on_revoked()
        await consumer.on_assigned(frozenset({IN}), Member())
        go_on.set()

    await append(log, "in", b"1", b"2", b"3")
    await run_until(app, holds(lambda: go_on.is_set() and counts["n"] == 3))

    assert await committed(log, "g", "in")()
    assert await values(log, "out") == [b"1", b"2", b"3"]
    assert await table(log, "g-counts") == {"n": 3}
    assert len(refused) == 1
    assert "taken away" in refused[0]


async def test_partition_that_goes_elsewhere_takes_its_keys_along(log: Log) -> None:
    """A table holds the keys of the partitions that are here, and those that come with their partition."""
    await log.create_topics([TopicSpec("two", 2)])
    app = App("g", log, runtime=FAST)
    counts = app.Table("counts", default=int)
    here: list[dict[str, int]] = []

    @app.agent(app.topic("two", key_type=str, value_serializer="raw"))
    async def count(stream: Any) -> None:
        async for key, _ in stream.items():
            counts[key] += 1

    @app.task
    async def rebalance() -> None:
        consumer: Any = app.consumer
        while not await committed(log, "g", "two")():
            await asyncio.sleep(0.005)
        for targets in [{0}, {1}, {0, 1}]:
            rebalances = app.rebalancing_count
            await consumer.on_revoked()
            await consumer.on_assigned(frozenset(TopicPartition("two", number) for number in targets), Member())
            while app.rebalancing_count == rebalances or app.rebalancing:
                await asyncio.sleep(0.001)
            here.append(dict(counts.items()))

    for number in range(2):
        await append(log, "two", b"", b"", key=b"k%d" % number, partition=number)
    await run_until(app, holds(lambda: len(here) == 3))

    assert here == [{"k0": 2}, {"k1": 2}, {"k0": 2, "k1": 2}]


async def test_topics_that_write_one_table_are_coupled(log: Log) -> None:
    """A commit of one while the other is half-way would contain that half, and it would be done anew after a crash."""
    other = TopicPartition("other", 0)
    await log.create_topics([TopicSpec("other", 1), TopicSpec("apart", 1)])
    app = App("g", log, runtime=FAST)
    shared, alone = app.Table("shared", default=int), app.Table("alone", default=int)

    @app.agent(app.topic("in"))
    async def one(stream: Any) -> None:
        async for _ in stream:
            shared["n"] += 1

    @app.agent(app.topic("other"))
    async def two(stream: Any) -> None:
        async for _ in stream:
            shared["n"] += 1

    @app.agent(app.topic("apart"))
    async def three(stream: Any) -> None:
        async for _ in stream:
            alone["n"] += 1

    tables = app.tables
    assert isinstance(tables, EventTableManager)
    before = tables.coupled(IN)
    for topic in ("in", "other", "apart"):
        await append(log, topic, b"1")
    await run_until(app, committed(log, "g", "in", "other", "apart"))

    assert before == set()
    assert tables.coupled(IN) == tables.coupled(other) == {IN, other}
    assert tables.coupled(TopicPartition("apart", 0)) == {TopicPartition("apart", 0)}
    assert await table(log, "g-shared") == {"n": 2}


async def test_events_are_delivered_in_pieces_that_their_agent_is_soon_done_with(log: Log) -> None:
    """A slow agent gets few at once, a quick one many, a `take` as many as it asks for, batches are whole."""
    app = App("g", log, runtime=FAST)
    for name in ("slow", "quick", "take"):
        await log.create_topics([TopicSpec(name, 1)])
        aiter(app.topic(name))
    conductor = app.topics
    assert isinstance(conductor, BatchConductor)

    def sizes(topic: str) -> list[int]:
        records = Records([None] * 1000, [b"1"] * 1000, [0] * 1000)
        fetched = Fetched(TopicPartition(topic, 0), 7, 1007, records)
        pieces = list(conductor.pieces(fetched))
        assert [piece.base_offset for piece in pieces] == [7 + n * len(pieces[0].records) for n in range(len(pieces))]
        assert pieces[-1].next_offset == 1007
        return [len(piece.records) for piece in pieces]

    assert sizes("slow") == [FIRST_PIECE] * (1000 // FIRST_PIECE)
    paces = {"slow": 0.05, "quick": 0.0001, "take": 0.05}
    for topic, pace in paces.items():
        (feed,) = conductor._feeds(topic)
        feed.pace = pace
        feed.most = 500 if topic == "take" else 1

    assert sizes("slow") == [2] * 500
    assert sizes("quick") == [1000]
    assert sizes("take") == [500, 500]
    assert sizes("in batches only") == [1000]
