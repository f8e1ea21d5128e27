"""Replicated tables by themselves: what holds when, what is kept, and that a replay finds what was found live."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from headrace.engine.batch import Batch
from headrace.engine.errors import TableFull
from headrace.engine.log import Fetched
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, fetched, run_batch
from headrace.schemas.silence import Silence
from headrace.tables.replicated import Replicated

TOPIC = "registry.devices"

#: Append time, key, value; None deletes.
Change = tuple[int, str, str | None]


class Device(msgspec.Struct, frozen=True):
    """An entry of a registry."""

    place: str


def of(*changes: Change, partition: int = 0, base_offset: int = 0) -> Fetched:
    """Changes as read from the log."""
    keys: list[bytes | None] = [key.encode() for _, key, _ in changes]
    values: list[bytes | None] = [None if value is None else value.encode() for _, _, value in changes]
    return fetched(Records(keys, values, [time for time, _, _ in changes]), TOPIC, partition, base_offset)


def table(*changes: Change, **options: Any) -> Replicated[str]:
    """A table of texts that has taken these."""
    made = Replicated(TOPIC, bytes.decode, **options)
    made.take(of(*changes))
    return made


def timeline(made: Replicated[str], key: str, *times: int) -> list[str | None]:
    return [made.get(key, time) for time in times]


def test_a_change_applies_from_its_append_time_on() -> None:
    """Also at that very millisecond; a deletion likewise, and before the first there is nothing."""
    made = table((10, "a", "1"), (20, "a", "2"), (30, "a", None), (40, "a", "4"))

    assert timeline(made, "a", 9, 10, 19, 20, 29, 30, 39, 40, 99) == [
        None, "1", "1", "2", "2", None, None, "4", "4",
    ]  # fmt: skip
    assert dict(made.items(25)) == {"a": "2"}
    assert dict(made.items(35)) == {}
    assert made.entries == 1


def test_of_two_changes_in_one_millisecond_the_later_one_holds() -> None:
    """By the order of the log."""
    assert timeline(table((10, "a", "1"), (10, "a", "2")), "a", 9, 10) == [None, "2"]


def test_a_change_is_never_overtaken_by_its_predecessor() -> None:
    """A writer whose clock is behind replaces what it follows in the log."""
    assert timeline(table((20, "a", "1"), (10, "a", "2")), "a", 10, 19, 20) == [None, None, "2"]


def test_of_a_key_in_two_partitions_the_newer_value_holds() -> None:
    """As after partitions were added; in whatever order they are read."""
    one, other = of((10, "a", "old"), partition=0), of((20, "a", "new"), partition=3)
    for order in ([one, other], [other, one]):
        made = Replicated(TOPIC, bytes.decode)
        for changes in order:
            made.take(changes)
        assert timeline(made, "a", 10, 20) == ["old", "new"]


def test_a_type_is_decoded_from_json() -> None:
    """Values are what msgspec makes of them; so are generic types."""
    devices = Replicated(TOPIC, Device)
    devices.take(of((10, "a", '{"place": "hall"}')))
    lists = Replicated(TOPIC, list[int])
    lists.take(of((10, "a", "[1]")))

    assert devices.get("a", 10) == Device("hall")
    assert lists.get("a", 10) == [1]


def test_what_cannot_be_decoded_is_left_out() -> None:
    """The former value stays, every refusal is counted, and logged once per key until it has a value again."""
    made = Replicated(TOPIC, Device)
    good, bad = '{"place": "hall"}', "{"

    changes = [(1, "a", good), (2, "a", bad), (3, "a", bad), (4, "b", bad), (5, "a", good), (6, "a", bad)]
    with capture_logs() as logged:
        refused = [made.take(of((time, key, value), base_offset=time)) for time, key, value in changes]

    assert refused == [0, 1, 1, 1, 0, 1]
    assert made.get("a", 9) == Device("hall")
    assert made.entries == 1
    assert [line["key"] for line in logged if line["event"] == "replica_value_refused"] == ["a", "b", "a"]


def test_a_refusal_is_logged_in_plain_words() -> None:
    """Where and what in one sentence, and the beginning of a key that somebody made endless."""
    made = Replicated(TOPIC, Silence.model_validate_json)

    with capture_logs() as logged:
        made.take(of((1, "k" * 3000, "{}")))
        made.take(of((2, "s", '{"id": "a\\u0000"}')))

    assert [line["key"] for line in logged] == [f"{'k' * 64}… (3,000 characters)", "s"]
    assert [line["error"] for line in logged] == ["id: is missing", "id: must not hold control characters"]


def test_history_ends_at_its_horizon() -> None:
    """What was replaced longer ago is forgotten; older records see the oldest value that is known."""
    made = table((0, "a", "1"), (0, "b", "x"), (10_000, "a", "2"), (20_000, "b", None), history=5.0)
    assert timeline(made, "a", 0, 9_999, 10_000) == ["2", "2", "2"]
    assert timeline(made, "b", 0, 19_999, 20_000) == ["x", "x", None]

    made.take(of((30_000, "c", "new")))

    assert timeline(made, "b", 0, 19_999) == [None, None]
    assert timeline(made, "c", 24_999, 25_000, 30_000) == ["new", None, "new"]
    assert made.replaced == 0


def test_history_is_bounded() -> None:
    """Of more replaced values than it may keep the oldest go, and the newest ones stay exact."""
    made = Replicated(TOPIC, bytes.decode, most=3)
    made.take(of(*((time, "a", str(time)) for time in range(100))))

    assert made.replaced == 3
    assert timeline(made, "a", 97, 98, 99) == ["97", "98", "99"]


def test_too_many_keys_are_an_error_that_says_what_to_do() -> None:
    """Until some are deleted."""
    made = Replicated(TOPIC, bytes.decode, most=2)
    with pytest.raises(TableFull, match=r"registry\.devices has more than 2 keys; delete some"):
        made.take(of((1, "a", "1"), (2, "b", "1"), (3, "c", "1")))

    made.take(of((4, "c", None)))

    assert made.entries == 2


def test_records_are_put_together_where_the_table_says_the_same() -> None:
    """A batch is cut where a change applies, whatever the order of its append times."""
    made = table((10, "a", "1"), (20, "b", "2"))

    assert [(span.at_ms, list(span.rows)) for span in made.spans([20, 12, 19, 25, 3])] == [
        (0, [4]), (10, [1, 2]), (20, [0, 3]),
    ]  # fmt: skip
    assert [(span.at_ms, list(span.rows)) for span in made.spans([12, 13])] == [(10, [0, 1])]
    assert made.spans([]) == []


class Naming:
    """Sends each record on with what the table says of its key, row by row and by spans."""

    name = "naming"
    topic = "in"
    tables = ()

    def __init__(self, names: Replicated[str]) -> None:
        self.names = names
        self.replicas = (names,)

    def process(self, batch: Batch) -> None:
        stamps = batch.records.timestamps
        by_span = {row: dict(self.names.items(span.at_ms)) for span in self.names.spans(stamps) for row in span.rows}
        for row, record in enumerate(batch):
            key = (record.key or b"").decode()
            name = self.names.get(key, record.timestamp)
            assert by_span[row].get(key) == name
            batch.send("out", record.key or b"", (name or "?").encode(), row=row)


KEYS = st.sampled_from("abc")
VALUES = st.one_of(st.none(), st.sampled_from("xyz"))


def replayed(names: Replicated[str], records: Records, sizes: Sequence[int]) -> list[Any]:
    """What `Naming` sends for these records, in batches of these sizes."""
    driven, start = Driven({}, []), 0
    for size in [*sizes, len(records)]:
        part = records.slice(start, start + size)
        if len(part):
            run_batch(Naming(names), fetched(part, "in", base_offset=start), driven)
        start += len(part)
    return driven.sent.get("out", [])


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), KEYS, st.one_of(st.just("record"), VALUES)), max_size=40),
    sizes=st.lists(st.integers(1, 5)),
    pieces=st.lists(st.integers(1, 5)),
    ahead=st.integers(0, 5),
)
def test_a_replay_finds_what_was_found_live(
    steps: list[tuple[int, str, str | None]], sizes: list[int], pieces: list[int], ahead: int
) -> None:
    """Live every change before a record is there, and perhaps some after; a replay reads the whole topic first."""
    time, changes, records = 0, list[Change](), list[tuple[int, str]]()
    live, sent = Replicated(TOPIC, bytes.decode), list[Any]()
    log: list[tuple[str, int]] = []
    for later, key, what in steps:
        time += later
        if what == "record":
            records.append((time, key))
            log.append(("record", len(records) - 1))
        else:
            changes.append((time, key, what))
            log.append(("change", len(changes) - 1))
    all_records = Records([key.encode() for _, key in records], [b""] * len(records), [at for at, _ in records])

    taken = 0
    for kind, number in log:
        if kind == "change":
            continue
        applies = sum(at <= records[number][0] for at, _, _ in changes)
        while taken < min(len(changes), applies + ahead):
            live.take(of(changes[taken], base_offset=taken))
            taken += 1
        sent += replayed(live, all_records.slice(number, number + 1), [])
    after = Replicated(TOPIC, bytes.decode)
    start = 0
    for size in [*pieces, len(changes)]:
        after.take(of(*changes[start : start + size], base_offset=start))
        start += size

    assert replayed(after, all_records, sizes) == sent
