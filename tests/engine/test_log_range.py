"""Reading a stretch of a partition."""

from collections.abc import Iterable, Mapping

import pytest

from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import Append, Fetched, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import MAX_WAITS, before, first_offsets, read_range, reading, split
from headrace.engine.records import Records

T = TopicPartition("things", 0)


def numbered(*offsets: int) -> Records:
    return Records([None] * len(offsets), [b"%d" % offset for offset in offsets], list(offsets))


def values(fetched: Fetched) -> list[int]:
    return [int(value or b"") for value in fetched.records.values]


class Slow:
    """A reader that has nothing at first, as one that fetches ahead; every second part is only a gap."""

    def __init__(self, answers: list[Fetched | None]) -> None:
        self.answers = answers
        self.waits = 0
        self.forgotten: list[TopicPartition] = []

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        return self.answers.pop(0) if self.answers else None

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool:
        self.waits += 1
        return False

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        self.forgotten += targets

    async def close(self) -> None:
        """Nothing to stop."""


async def test_it_ends_at_the_end_that_was_given() -> None:
    """Whatever is appended meanwhile, and however much comes at once."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec(T.topic, 1)])
    for first in (0, 4, 8):
        await log.commit(Transaction([Append(T, numbered(*range(first, first + 4)))]))

    async with reading(log) as reader:
        parts = [part async for part in read_range(reader, T, 3, 9, max_records=4)]

    assert [value for part in parts for value in values(part)] == [3, 4, 5, 6, 7, 8]
    assert len(parts) > 1
    assert parts[-1].next_offset == 9
    assert await first_offsets(log, T.topic) == {T: 0}
    await log.close()


async def test_it_waits_for_what_is_fetched_ahead() -> None:
    """And passes gaps, at the end too."""
    answers = [None, Fetched(T, 5, 8, numbered(5, 6), [5, 6]), None, Fetched(T, 8, 10, numbered())]
    reader = Slow(answers)

    parts = [part async for part in read_range(reader, T, 5, 10)]

    assert [values(part) for part in parts] == [[5, 6], []]
    assert [part.next_offset for part in parts] == [8, 10]
    assert reader.waits == 2
    assert reader.forgotten == [T]


async def test_it_gives_up_when_nothing_comes() -> None:
    """With what to look at."""
    reader = Slow([])

    with pytest.raises(LogError, match="things/0 at 5"):
        [part async for part in read_range(reader, T, 5, 10)]

    assert reader.waits == MAX_WAITS


@pytest.mark.parametrize(
    ("offset", "first", "second"),
    [
        (0, [], [2, 5, 6]),
        (2, [], [2, 5, 6]),
        (3, [2], [5, 6]),
        (5, [2], [5, 6]),
        (6, [2, 5], [6]),
        (9, [2, 5, 6], []),
        (99, [2, 5, 6], []),
    ],
)
def test_split_at_an_offset(offset: int, first: list[int], second: list[int]) -> None:
    """Parts go on where the other ends, and keep the gaps between their offsets."""
    fetched = Fetched(T, 2, 9, numbered(2, 5, 6), [2, 5, 6])

    one, two = split(fetched, offset)

    assert (values(one), values(two)) == (first, second)
    assert one.next_offset == two.base_offset
    assert two.next_offset == 9
    assert [part.offset(row) for part in (one, two) for row in range(len(part.records))] == [2, 5, 6]


def test_before_leaves_alone_what_ends_early_enough() -> None:
    """The usual case costs nothing."""
    fetched = Fetched(T, 2, 4, numbered(2, 3))

    assert before(fetched, 4) is fetched
    assert values(before(fetched, 3)) == [2]
