"""The log with compacted topics while it merges: other processes, kills, and rows that cannot be read."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.engine.embedded.database import connect
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.embedded.merge import Merging
from headrace.engine.errors import LogError
from headrace.engine.log import Changes, Known, TopicPartition, TopicSpec, Transaction
from tests.engine.embedded.compacted_log import damage

TARGET = TopicPartition("state", 0)
KEYS = 400
#: A merge is always in hand, and every step of it is short.
ALWAYS = Merging(least=100, most=300, run=50, block_bytes=500, seconds=0.0005)

SPEC = TopicSpec(TARGET.topic, 1, compacted=True)
#: Commits round after round.
WRITER = """
import asyncio, sys
from pathlib import Path
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Changes, Transaction
from tests.engine.embedded.test_merging_log import ALWAYS, TARGET, SPEC, entries

async def main():
    log = EmbeddedLog(Path(sys.argv[1]), merging=ALWAYS)
    await log.create_topics([SPEC])
    for number in range(int(sys.argv[2]), 1_000_000):
        await log.commit(Transaction(changes=[Changes(TARGET, entries(number))]))
        print(number, flush=True)

asyncio.run(main())
"""


def entries(number: int) -> dict[bytes, bytes | None]:
    """What round `number` changes: a tenth of the keys gets the number, and a third of those is deleted."""
    return {b"%d" % key: None if (key + number) % 3 == 0 else b"%d" % number for key in range(number % 10, KEYS, 10)}


def expected(rounds: int) -> dict[bytes, bytes]:
    """What there is after that many rounds."""
    found: dict[bytes, bytes | None] = {}
    for number in range(rounds):
        found |= entries(number)
    return {key: value for key, value in found.items() if value is not None}


async def commit(log: EmbeddedLog, rounds: int) -> None:
    for number in range(rounds):
        await log.commit(Transaction(changes=[Changes(TARGET, entries(number))]))


async def restore(log: EmbeddedLog) -> list[tuple[bytes, bytes]]:
    return [entry async for chunk in log.restore(TARGET) for entry in chunk]


def writer(folder: Path, first: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_acknowledged_changes_survive_kills_while_they_are_merged(tmp_path: Path) -> None:
    """After every kill -9 the log holds what was acknowledged, and at most one commit more."""
    done = 0
    for kill in range(2):
        with writer(tmp_path, done) as process:
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(40 + 7 * kill)]
            process.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout.read().split()]

        log = EmbeddedLog(tmp_path)
        await log.create_topics([])
        found = await restore(log)
        await log.close()

        assert len(dict(found)) == len(found)
        assert dict(found) in (expected(acknowledged[-1] + 1), expected(acknowledged[-1] + 2))
        done = acknowledged[-1] + 1


async def test_another_process_reads_while_changes_are_merged(tmp_path: Path) -> None:
    """Each key is read once, with a value that was its newest at some time while it was read."""
    with writer(tmp_path, 0) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        log = EmbeddedLog(tmp_path, merging=Merging(least=1 << 30, most=1 << 30, most_bytes=1 << 30))
        await log.create_topics([])
        for _ in range(10):
            before = int(process.stdout.readline())
            found = await restore(log)
            after = max(int(value) for _, value in await restore(log)) + 1
            _check(found, before, after)
        process.send_signal(signal.SIGKILL)
        await log.close()


def _check(found: list[tuple[bytes, bytes]], before: int, after: int) -> None:
    """`before` was committed when reading began, `after` not when it ended."""
    assert len(dict(found)) == len(found)
    least = expected(before + 1)
    for key, value in found:
        assert entries(int(value))[key] == value
        assert int(value) >= int(least.get(key, b"0"))
    for key in least.keys() - dict(found).keys():
        assert any(entries(number).get(key, b"") is None for number in range(before + 1, after + 1))


async def test_catch_up_tells_what_is_known_however_far_it_is_merged(tmp_path: Path) -> None:
    """A copy that is as new as the log gets one entry; any other gets all."""
    log = EmbeddedLog(tmp_path, merging=ALWAYS)
    await log.create_topics([SPEC])

    for number in range(60):
        await log.commit(Transaction(changes=[Changes(TARGET, {**entries(number), b"digest": b"%d" % number})]))
        same = [piece async for piece in log.catch_up(TARGET, Known(0, b"digest", b"%d" % number))]
        older = [piece async for piece in log.catch_up(TARGET, Known(0, b"digest", b"%d" % (number - 1)))]

        assert [(piece.entries, piece.anew) for piece in same] == [([(b"digest", b"%d" % number)], False)]
        assert older[0].anew
        assert {key: value for piece in older for key, value in piece.entries} == {
            **expected(number + 1),
            b"digest": b"%d" % number,
        }
    await log.close()


async def test_a_torn_row_stops_the_log(tmp_path: Path) -> None:
    """The merge that comes upon it fails, and with it all later commits, saying what to do; nothing hangs."""
    log = EmbeddedLog(tmp_path, merging=ALWAYS)
    await log.create_topics([SPEC])
    await commit(log, 2)
    connection = connect(tmp_path)
    damage(connection, "changes")
    connection.close()

    async with asyncio.timeout(120):
        with pytest.raises(LogError, match="restore the data folder from a copy"):
            await restore(log)
        with pytest.raises(LogError, match="restore the data folder from a copy"):
            await commit(log, 10)
    await log.close()


async def test_close_leaves_a_merge_where_it_is(tmp_path: Path) -> None:
    """A log that is opened again goes on with the merge, and reads the same."""
    for number in range(40):
        log = EmbeddedLog(tmp_path, merging=ALWAYS)
        await log.create_topics([SPEC])
        await log.commit(Transaction(changes=[Changes(TARGET, entries(number))]))
        assert dict(await restore(log)) == expected(number + 1)
        await log.close()
