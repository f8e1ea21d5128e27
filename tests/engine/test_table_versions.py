"""Changelogs of other versions, and damaged ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Changes, TopicPartition, TopicSpec, Transaction
from tests.engine.test_app import FAST, OUT, Count, Counter, append, position_is, run_until, values

CHANGELOG = TopicPartition("g-count-changelog", 0)


class SecondCounter(Counter):
    """Calls its entries otherwise, and leaves out those that are 1."""

    version = 2

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self.counts.update({key.removeprefix(b"v:"): int(value.removeprefix(b"n=")) for key, value in entries})

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        return {b"v:" + key: b"n=" + (value or b"") for key, value in super().changes(partition).items()}

    def migrate(self, version: int, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        assert version == 1
        return {b"v:" + key: b"n=" + value for key, value in entries.items() if value != b"1"}


async def count(folder: Path, table: Counter, *appended: bytes) -> App:
    """Run an app with this table until it has counted `appended`."""
    log = EmbeddedLog(folder)
    app = App("g", log, runtime=FAST)
    operator = Count()
    operator.table = table
    operator.tables = [table]
    app.add([operator])
    await app.create_topics([TopicSpec("in", 1), TopicSpec("out", 1)], partitions=1)
    before = (await log.end_offsets("in"))[TopicPartition("in", 0)]
    if appended:
        await append(log, *appended)
    done = position_is(log, "g", before + len(appended))

    async def done_or_stopped() -> bool:
        return bool(app.stopped_partitions) or (bool(appended) and await done())

    await run_until(app, done_or_stopped)
    await log.close()
    return app


async def entries(folder: Path) -> dict[bytes, bytes]:
    log = EmbeddedLog(folder)
    await log.topics()
    found = {key: value async for chunk in log.restore(CHANGELOG) for key, value in chunk}
    await log.close()
    return found


async def sent(folder: Path) -> list[bytes | None]:
    log = EmbeddedLog(folder)
    await log.topics()
    found = await values(log, OUT)
    await log.close()
    return found


async def test_older_changelog_is_migrated_once(tmp_path: Path) -> None:
    """Counting goes on; what the new version has no use for is gone from the changelog."""
    await count(tmp_path, Counter(), b"a", b"a", b"b")
    await count(tmp_path, SecondCounter(), b"c")
    migrated = await entries(tmp_path)
    await count(tmp_path, SecondCounter(), b"a", b"b")

    assert migrated == {b"v:a": b"n=2", b"v:c": b"n=1", b"\0version": b"2"}
    assert await entries(tmp_path) == {**migrated, b"v:a": b"n=3", b"v:b": b"n=1"}
    assert await sent(tmp_path) == [b"a=1", b"a=2", b"b=1", b"c=1", b"a=3", b"b=1"]


async def test_newer_changelog_stops_the_partition(tmp_path: Path) -> None:
    """An older program leaves it alone, and says what to do."""
    await count(tmp_path, SecondCounter(), b"a")
    before = await entries(tmp_path)

    app = await count(tmp_path, Counter())

    [reason] = app.stopped_partitions.values()
    assert "written by version 2 of table count, this program knows 1" in reason
    assert "`headrace topics reset in --group g`" in reason
    assert await entries(tmp_path) == before


async def test_damaged_changelog_stops_the_partition(tmp_path: Path) -> None:
    """Nothing of the partition is processed on half a table."""
    await count(tmp_path, Counter(), b"a")
    log = EmbeddedLog(tmp_path)
    await log.topics()
    await log.commit(Transaction(changes=[Changes(CHANGELOG, {b"b": b"torn"})]))
    await append(log, b"a")
    await log.close()

    app = await count(tmp_path, Counter())

    [reason] = app.stopped_partitions.values()
    assert "g-count-changelog/0 holds an entry that cannot be read" in reason
    assert "`headrace topics reset in --group g` starts the tables over" in reason
    assert await sent(tmp_path) == [b"a=1"]
