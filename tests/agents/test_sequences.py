"""Sequence numbers: gaps, repeats, latecomers and new beginnings, per device and exact under any restart."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.ingest import Ingest
from headrace.agents.sequence_fold import MAX_GAP, WINDOW, Counted, counted
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header, Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.sequence import DeviceSequences

T0 = 1_704_067_200_000
METER = DeviceType.model_validate({
    "name": "meter", "time": {"missing": "append"}, "fields": {"kwh": {"max": 1_000_000}},
})  # fmt: skip
#: Device, number, event time or None.
Row = tuple[str, int, int | None]


def ingest(metrics: Metrics | None = None) -> Ingest:
    """A new one, which knows meters."""
    return Ingest({METER.name: METER}, metrics=metrics)


def log_of(rows: Sequence[Row], modulo: int = 256, profile: str = "p") -> Records:
    """Raw messages with these numbers, all of them different."""
    payloads = [
        {"kwh": place} if time is None else {"kwh": place, "timestamp": time} for place, (*_, time) in enumerate(rows)
    ]
    headers: dict[str, Header] = {
        topics.PROFILE: profile.encode(),
        topics.DEVICE_TYPE: METER.name.encode(),
        topics.SEQUENCE: [b"%d %d" % (number, modulo) for _, number, _ in rows],
    }
    keys = [device.encode() for device, *_ in rows]
    return Records([*keys], [orjson.dumps(each) for each in payloads], [T0 + 60_000] * len(rows), headers)


def numbers(*given: int, modulo: int = 256) -> dict[str, Any]:
    """What is known of one device that sent these, without times."""
    found: dict[str, Any] = newest(drive(ingest(), log_of([("d", number, None) for number in given], modulo)))["d"]
    streams: dict[str, Any] = found["p"]
    return streams


def newest(driven: Driven) -> dict[str, Any]:
    """The streams of each device, as the compacted topic has them."""
    documents = [orjson.loads(record.value or b"") for record in driven.sent.get(topics.SEQUENCES, [])]
    for document in documents:
        DeviceSequences.model_validate(document)
    return {document["device_id"]: document["streams"] for document in documents}


def told(**counts: int) -> dict[str, int]:
    """Counts, and 0 for those that are not named."""
    return {"received": 0, "lost": 0, "late": 0, "repeats": 0, "resets": 0, "modulo": 256, **counts}


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ((5,), told(last=5, received=1)),
        ((5, 6, 7), told(last=7, received=3)),
        ((5, 8), told(last=8, received=2, lost=2)),
        ((254, 255, 0, 1), told(last=1, received=4)),
        ((254, 1), told(last=1, received=2, lost=2)),
        ((5, 5, 6), told(last=6, received=2, repeats=1)),
        ((5, 8, 6), told(last=8, received=3, lost=1, late=1)),
        ((5, 8, 6, 6), told(last=8, received=3, lost=1, late=1, repeats=1)),
        ((5, 6, 7, 5), told(last=7, received=3, repeats=1)),
        ((90, 91, 0, 1), told(last=1, received=4, resets=1)),
        ((200, 100), told(last=100, received=2, resets=1)),
        ((100, 99, 101), told(last=101, received=3, late=1)),
        ((100, 99, 99), told(last=100, received=2, late=1, repeats=1)),
        ((0, 2, 1), told(last=2, received=3, late=1)),
        ((0, 1, 2, 0, 1), told(last=1, received=5, resets=1)),
    ],
)
def test_numbers_without_times(given_: tuple[int, ...], wanted: dict[str, int]) -> None:
    """In turn, after a gap, around the end, there before, late, begun anew."""
    assert numbers(*given_) == wanted


def test_with_times_a_new_beginning_is_no_repeat() -> None:
    """A lower number at a later time is a device that began anew; at its old time the message came again."""
    rows: list[Row] = [("d", 10, T0), ("d", 11, T0 + 1), ("d", 10, T0), ("d", 5, T0 + 2), ("d", 6, T0 + 3)]

    found = newest(drive(ingest(), log_of(rows)))["d"]["p"]

    assert found == told(last=6, received=4, repeats=1, resets=1, time=T0 + 3)


def test_the_same_number_at_a_later_time_is_a_new_beginning() -> None:
    """A device that starts before each message always sends 0."""
    rows: list[Row] = [("d", 0, T0 + each) for each in range(4)]

    assert newest(drive(ingest(), log_of(rows)))["d"]["p"] == told(last=0, received=4, resets=3, time=T0 + 3)


def test_a_step_that_is_too_far_is_a_new_beginning() -> None:
    """Nobody loses a week's messages because a counter jumped."""
    assert numbers(5, 5 + MAX_GAP, modulo=2**32)["lost"] == MAX_GAP - 1
    assert numbers(5, 6 + MAX_GAP, modulo=2**32)["resets"] == 1


def test_streams_are_apart() -> None:
    """Of devices, and of the profiles of one device; a profile with other numbers begins anew."""
    sequences = ingest()
    first = drive(sequences, log_of([("a", 1, None), ("b", 9, None), ("a", 3, None)]))
    second = drive(sequences, log_of([("a", 70, None)], 65_536, "q"))
    third = drive(sequences, log_of([("a", 4, None)], 65_536, "p"))

    assert {device: streams["p"]["lost"] for device, streams in newest(first).items()} == {"a": 1, "b": 0}
    assert newest(second)["a"].keys() == {"p", "q"}
    assert newest(third)["a"]["p"] == told(last=4, received=3, lost=1, resets=1, modulo=65_536)


def test_what_is_not_counted() -> None:
    """Dead letters that were sent back, messages of nobody, and headers that say nothing."""
    records = log_of([("d", 1, None), ("?", 2, None), ("d", 300, None), ("d", 9, None), ("d", 3, None)])
    redriven: list[bytes | None] = [None, None, None, b"0/7", None, None]
    records.headers[topics.REDRIVEN_FROM] = redriven
    header = records.headers[topics.SEQUENCE]
    assert isinstance(header, list)
    header[4] = b"3 of 256"
    records.keys.append(b"\xff")
    records.values.append(b"")
    records.timestamps.append(T0)
    header.append(b"7 256")
    metrics = Metrics()

    found = newest(drive(ingest(metrics), records))

    assert found == {"d": {"p": told(last=1, received=1)}}
    assert metrics.value("headrace_sequence_numbers_total", outcome="received") == 1
    assert metrics.value("headrace_sequence_numbers_total", outcome="unusable") == 2


def test_without_numbers_nothing_happens() -> None:
    """Ordinary messages are not looked at."""
    records = log_of([("d", 1, T0)])
    del records.headers[topics.SEQUENCE]

    assert drive(ingest(), records).sent.keys() == {topics.READINGS}


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 255), st.one_of(st.none(), st.integers(T0, T0 + 5))), max_size=40
)


@given(ROWS, st.lists(st.integers(1, 8), max_size=8))
def test_boundaries_and_restarts_change_nothing(rows: list[Row], sizes: list[int]) -> None:
    """Any batches, with a crash behind each, leave the same as one batch: in the topic, and in the table."""
    whole = newest(drive(ingest(), log_of(rows)))

    cut = newest(drive(ingest(), log_of(rows), batch_sizes=sizes, restart=ingest))

    assert cut == whole


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 255), st.lists(st.booleans(), max_size=60))
def test_lost_and_received_are_what_was_sent(steps: list[int], first: int, kept: list[bool]) -> None:
    """Of numbers in turn, some of them dropped: lost is the dropped ones between the first and the last that came."""
    sent = [(first + place) % 256 for place in range(len(steps))]
    keep = (kept + [True] * len(sent))[: len(sent)]
    came = [number for number, each in zip(sent, keep, strict=True) if each]
    if not came:
        return

    found = numbers(*came)

    span = len(sent) - keep.index(True) - keep[::-1].index(True)
    assert (found["received"], found["lost"]) == (len(came), span - len(came))
    assert (found["late"], found["repeats"], found["resets"]) == (0, 0, 0)


@given(st.permutations(range(100, 100 + WINDOW // 2)), st.lists(st.integers(0, WINDOW // 2 - 1), max_size=10))
def test_any_order_within_the_window_loses_nothing(order: list[int], again: list[int]) -> None:
    """Messages of a known stream that overtake each other all count as received, and none as lost in the end."""
    state = counted(None, 99, 256, None)[0]

    for number in [*order, *(order[place] for place in again)]:
        state, _ = counted(state, number, 256, None)

    assert isinstance(state, Counted)
    assert (state.received, state.lost, state.repeats) == (1 + len(order), 0, len(again))


def test_an_old_message_from_far_behind_is_no_new_beginning() -> None:
    """Its time says so; nobody knows any more whether it came, so nothing is taken off what was lost."""
    state = None
    for number in [*range(1, 20), *range(21, 101)]:
        state, _ = counted(state, number, 65_536, T0 + number * 1_000)

    after, what = counted(state, 20, 65_536, T0 + 20_000)

    assert what == {"repeat": 1}
    assert after is not None
    assert (after.last, after.received, after.lost, after.resets) == (100, 99, 1, 0)
