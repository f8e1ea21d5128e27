"""The newest records in memory are those of the log, and never more of them than the bound says."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.embedded.tail import BATCH_BYTES, RECORD_BYTES, Tail
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records

BUSY, QUIET = TopicPartition("busy", 0), TopicPartition("quiet", 0)


def appended(target: TopicPartition, base: int, count: int) -> Fetched:
    """A batch whose values are their offsets."""
    values: list[bytes | None] = [b"%d" % offset for offset in range(base, base + count)]
    return Fetched(target, base, base + count, Records([None] * count, values, [0] * count))


@given(
    appends=st.lists(st.tuples(st.sampled_from([BUSY, QUIET]), st.integers(1, 5), st.integers(0, 2)), max_size=40),
    batches=st.integers(1, 12),
    most=st.integers(0, 7),
)
def test_what_is_read_follows_without_a_gap(
    appends: list[tuple[TopicPartition, int, int]], batches: int, most: int
) -> None:
    """Whatever is given for an offset begins there, has all records up to its end, and ends where the next begins."""
    tail, ends = Tail(batches * (BATCH_BYTES + RECORD_BYTES)), {BUSY: 0, QUIET: 0}

    for target, count, by_others in appends:
        base = ends[target] + by_others
        tail.put(appended(target, base, count), 10 * count)
        ends[target] = base + count

        assert tail.get(target, base, most) is not None
        for each, end in ends.items():
            for offset in range(end + 1):
                found = tail.get(each, offset, most)
                if found is not None:
                    assert (found.target, found.base_offset) == (each, offset)
                    assert found.records.values == [b"%d" % at for at in range(offset, found.next_offset)]
                    assert min(most, end - offset) <= len(found.records)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 900)), min_size=1, max_size=60))
def test_all_partitions_together_are_bounded(appends: list[tuple[int, int, int]]) -> None:
    """However appends are spread over partitions, no more is kept than the bound, or the newest batch."""
    bound = 4 * (BATCH_BYTES + 3 * RECORD_BYTES)
    tail, ends = Tail(bound), [0, 0, 0, 0]

    for partition, count, size in appends:
        tail.put(appended(TopicPartition("topic", partition), ends[partition], count), size)
        ends[partition] += count

        assert tail.bytes <= max(bound, size + count * RECORD_BYTES + BATCH_BYTES)


def test_a_quiet_partition_does_not_keep_what_a_busy_one_outlived() -> None:
    """The oldest batches go first: the little that a quiet partition gets does not pile up for hours."""
    tail = Tail(50 * (BATCH_BYTES + RECORD_BYTES))

    for number in range(1_000):
        tail.put(appended(QUIET, number, 1), 0)
        for each in range(9):
            tail.put(appended(BUSY, number * 9 + each, 1), 0)

    assert tail.get(QUIET, 994, 100) is None
    assert tail.get(QUIET, 995, 100) is not None
    assert tail.get(BUSY, 8_955, 100) is not None
