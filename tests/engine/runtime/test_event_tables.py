"""Faust's tables: changes are staged with their event, kept in the changelog, restored in bulk."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.exceptions import PartitionsMismatch

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.log import Append, Changes, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from tests.engine.runtime.running import FAST, NoWait, append, committed, holds, run_until, table, values

WORDS = ("the", "quick", "brown", "fox")


class Account(faust.Record):
    """A value that can be changed in place."""

    total: int = 0


def counting(app: App, topic: str = "in") -> Any:
    """An app's table of counts by key, and the agent that counts."""
    counts = app.Table("counts", default=int)

    @app.agent(app.topic(topic, key_type=str, value_serializer="raw"))
    async def count(stream: Any) -> None:
        async for key, _ in stream.items():
            counts[key] += 1

    return counts


async def send_words(log: Log, words: list[str], partitions: int) -> None:
    """One record per word, in the partition of its key."""
    partitioner = Partitioner(partitions)
    for word in words:
        key = word.encode()
        await append(log, "in", b"", key=key, partition=partitioner.partition(key))


async def test_table_after_restarts_is_what_a_count_by_hand_gives(tmp_path: Path) -> None:
    """Each run goes on with the table that the last one committed, in any number of partitions."""
    words = [WORDS[n * n % 4] for n in range(60)]
    for run in range(3):
        log = EmbeddedLog(tmp_path)
        await log.create_topics([TopicSpec("in", 3)])
        app = App("g", log, runtime=FAST)
        counts = counting(app)
        await send_words(log, words[run * 20 : run * 20 + 20], 3)
        await run_until(app, committed(log, "g", "in"))
        by_hand = Counter(words[: run * 20 + 20])
        assert dict(counts.items()) == by_hand
        assert await table(log, "g-counts") == by_hand
        await log.close()


async def test_table_changes_of_an_event_in_hand_are_not_committed(log: EmbeddedLog) -> None:
    """Work that a stop interrupts leaves no trace in the table: the next run counts it once."""
    first = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))
    counts = first.Table("counts", default=int)

    @first.agent(first.topic("in"))
    async def stuck(stream: Any) -> None:
        async for _ in stream:
            counts["n"] += 1
            if counts["n"] == 2:
                await asyncio.Event().wait()

    await append(log, "in", b"1", b"2", b"3")
    await run_until(first, holds(lambda: counts["n"] == 2))
    assert await table(log, "g-counts") == {}

    second = App("g", log, runtime=FAST)
    again = second.Table("counts", default=int)

    @second.agent(second.topic("in"))
    async def count(stream: Any) -> None:
        async for _ in stream:
            again["n"] += 1

    await run_until(second, committed(log, "g", "in"))
    assert await table(log, "g-counts") == {"n": 3}


async def test_changes_are_taken_back_when_the_agent_raises(log: EmbeddedLog) -> None:
    """Sets, deletes and values changed in place are as before the event; only what it did in the end counts."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    numbers = app.Table("numbers", default=int)
    accounts = app.Table("accounts", value_type=Account, default=Account)
    lists = app.Table("lists", default=list)
    tries: list[Any] = []

    @app.agent(app.topic("in"))
    async def change(stream: Any) -> None:
        async for value in stream:
            before = (dict(numbers.items()), [a.total for a in accounts.values()], [list(v) for v in lists.values()])
            numbers["a"] += value
            numbers["a"] += value
            if "b" in numbers:
                del numbers["b"]
            else:
                numbers["b"] = value
            account = accounts["a"]
            account.total += value
            accounts["a"] = account
            known = lists["a"]
            known.append(value)
            lists["a"] = known
            if value == 2 and len(tries) < 2:
                tries.append(before)
                raise RuntimeError("not yet")

    await append(log, "in", b"1", b"2")
    await run_until(app, committed(log, "g", "in"))

    assert tries == [({"a": 2, "b": 1}, [1], [[1]])] * 2
    assert dict(numbers.items()) == {"a": 6}
    assert await table(log, "g-numbers") == {"a": 6}
    assert accounts["a"].total == 3
    assert lists["a"] == [1, 2]
    assert (await table(log, "g-lists")) == {"a": [1, 2]}


async def test_dead_lettered_event_changes_no_table(log: EmbeddedLog) -> None:
    """What it did before it raised for the last time is taken back too."""
    app = App("g", log, runtime=FAST, clock=NoWait())
    counts = app.Table("counts", default=int)

    @app.agent(app.topic("in"))
    async def count(stream: Any) -> None:
        async for value in stream:
            counts["n"] += 1
            if value == 2:
                raise ValueError("two")

    await append(log, "in", b"1", b"2", b"3")
    await run_until(app, committed(log, "g", "in"))

    assert await table(log, "g-counts") == {"n": 2}
    assert await values(log, topics.DEAD_LETTERS) == [b"2"]


async def test_buffer_of_a_take_changes_tables_too(log: EmbeddedLog) -> None:
    """Faust forbids it: there is no event at hand then. Here a buffer is of one partition."""
    app = App("g", log, runtime=FAST)
    counts = app.Table("counts", default=int)

    @app.agent(app.topic("in"))
    async def count(stream: Any) -> None:
        async for buffer in stream.take(10, within=1):
            counts["n"] += len(buffer)

    await append(log, "in", b"1", b"2", b"3")
    await run_until(app, committed(log, "g", "in"))

    assert await table(log, "g-counts") == {"n": 3}


async def test_windowed_table_counts_by_append_time_and_restores(tmp_path: Path) -> None:
    """Tumbling and hopping windows of Faust, on the record's own time, over a restart."""
    for run in range(2):
        log = EmbeddedLog(tmp_path)
        await log.create_topics([TopicSpec("in", 1)])
        app = App("g", log, runtime=FAST)
        tumbling = app.Table("tumbling", default=int).tumbling(10.0)
        hopping = app.Table("hopping", default=int).hopping(10.0, 5.0)
        now: list[tuple[int, int]] = []

        @app.agent(app.topic("in"))
        async def count(stream: Any, now: Any = now, tumbling: Any = tumbling, hopping: Any = hopping) -> None:
            async for _ in stream:
                tumbling["n"] += 1
                hopping["n"] += 1
                now.append((tumbling["n"].current(), hopping["n"].current()))

        stamps = [1_000_000, 1_004_000, 1_012_000]
        for stamp in stamps:
            records = Records([b"k"], [b"1"], [stamp + run * 1_000])
            await log.commit(Transaction([Append(TopicPartition("in", 0), records)]))
        await run_until(app, committed(log, "g", "in"))
        kept = await table(log, "g-tumbling")
        await log.close()

    assert now == [(3, 3), (4, 2), (2, 2)]
    assert kept == {"['n', [1000.0, 1009.9]]": 4, "['n', [1010.0, 1019.9]]": 2}


async def test_expired_windows_leave_the_changelog(log: EmbeddedLog) -> None:
    """Faust forgets an old window in memory only; a restart would bring it back for good."""
    app = App("g", log, runtime=FAST, table_cleanup_interval=0.2)
    counts = app.Table("counts", default=int).tumbling(10.0, expires=20.0)
    underlying: Any = counts.table

    @app.agent(app.topic("in"))
    async def count(stream: Any) -> None:
        async for _ in stream:
            counts["n"] += 1

    kept: list[dict[Any, Any]] = []
    expire = underlying._del_old_keys

    async def expire_what_was_seen() -> None:
        if kept:
            await expire()

    underlying._del_old_keys = expire_what_was_seen
    await log.create_topics([TopicSpec("g-counts-changelog", 1, compacted=True)])
    await append(log, "in", b"1")  # of 2023

    async def gone() -> bool:
        if not await committed(log, "g", "in")():
            return False
        kept.append(await table(log, "g-counts"))
        if kept[-1] and not underlying.data:
            await append(log, "in", b"{not json")  # so that there is something to commit
        return not kept[-1]

    await run_until(app, gone)

    assert kept[0] == {"['n', [1700000000.0, 1700000009.9]]": 1}


async def test_recovery_callbacks_come_before_events_and_tasks(log: EmbeddedLog) -> None:
    """`table.on_recover` sees the restored table, and nothing has changed it yet."""
    await log.create_topics([TopicSpec("g-counts-changelog", 1, compacted=True)])
    await log.commit(Transaction(changes=[Changes(TopicPartition("g-counts-changelog", 0), {b'"k"': b"41"})]))
    app = App("g", log, runtime=FAST)
    counts = counting(app)
    order: list[Any] = []

    @counts.on_recover
    async def recovered() -> None:
        order.append(("recovered", dict(counts.items())))

    @app.task
    async def task() -> None:
        order.append("task")

    @app.on_rebalance_complete.connect
    async def complete(*args: Any, **kwargs: Any) -> None:
        order.append("complete")

    await append(log, "in", b"1")
    await run_until(app, committed(log, "g", "in"))

    assert order[0] == ("recovered", {"k": 41})
    assert set(order[1:]) == {"task", "complete"}
    assert dict(counts.items()) == {"k": 42}


async def test_changelog_that_is_not_of_this_table_ends_the_app(log: EmbeddedLog) -> None:
    """The message names the table and the topic."""
    await log.create_topics([TopicSpec("g-counts-changelog", 1, compacted=True)])
    await log.commit(Transaction(changes=[Changes(TopicPartition("g-counts-changelog", 0), {b"\xff": b"{"})]))
    app = App("g", log, runtime=FAST)
    counting(app)

    with pytest.raises(ConfigError, match="g-counts-changelog"):
        await run_until(app, holds(lambda: False))


async def test_table_of_another_number_of_partitions_ends_the_app(log: EmbeddedLog) -> None:
    """Its keys would be elsewhere; no second try repairs that."""
    app = App("g", log, runtime=FAST.model_copy(update={"drain_timeout": 0.05}))
    counts = app.Table("counts", default=int, partitions=2)

    @app.agent(app.topic("in"))
    async def count(stream: Any) -> None:
        async for _ in stream:
            counts["n"] += 1

    await append(log, "in", b"1")
    with pytest.raises(PartitionsMismatch):
        await run_until(app, holds(lambda: False))


async def test_tables_change_only_with_an_event_in_hand(log: EmbeddedLog) -> None:
    """A task or timer has no position to commit a change with."""
    app = App("g", log, runtime=FAST)
    counts = counting(app)

    @app.task
    async def outside() -> None:
        counts["k"] = 1

    with pytest.raises(TypeError, match="event of a topic in hand"):
        await run_until(app, holds(lambda: False))


@pytest.mark.parametrize("kind", ["GlobalTable", "SetTable", "SetGlobalTable"])
def test_other_kinds_of_tables_are_refused(kind: str) -> None:
    """They need what this table manager does not do: replication to every worker, or operations in the changelog."""
    app = App("g", object())  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="only Table"):
        getattr(app, kind)("counts")


@pytest.mark.parametrize(
    "options",
    [{"use_partitioner": True}, {"store": "rocksdb://"}, {"changelog_topic": "elsewhere"}],
)
def test_options_of_tables_that_have_no_effect_are_refused(options: dict[str, Any]) -> None:
    """Better than a table that is not where its user thinks."""
    app = App("g", object())  # type: ignore[arg-type]
    if "changelog_topic" in options:
        options = {"changelog_topic": app.topic(options["changelog_topic"])}

    with pytest.raises(ConfigError, match=r"leave out|no effect"):
        app.Table("counts", **options)
