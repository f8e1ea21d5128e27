"""Tables with types: what is checked, versions, and expiry by record."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError, TableUnreadable
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.tables.keyvalue import KeyValue
from headrace.tables.rocks import RocksStores
from tests.tables.changelog import Changelog

MakeStores = Callable[[], RocksStores | None]


class DoorKey(msgspec.Struct, frozen=True):
    """A key."""

    house: str
    number: int


class Opened(msgspec.Struct):
    """The first version of a value."""

    open: bool


class Door(msgspec.Struct):
    """The second: how wide, percent."""

    width: float


@pytest.fixture(params=["memory", "rocksdb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStores:
    """What a table is made with."""
    return lambda: RocksStores(tmp_path) if request.param == "rocksdb" else None


def first_table(stores: MakeStores) -> KeyValue[DoorKey, Opened]:
    return KeyValue.typed("door", key=DoorKey, value=Opened, stores=stores(), ttl=60)


def second_table(stores: MakeStores, migrate: Callable[[Any], Any]) -> KeyValue[DoorKey, Door]:
    migrations = {1: migrate}
    return KeyValue.typed("door", key=DoorKey, value=Door, version=2, migrate=migrations, stores=stores(), ttl=60)


def width(old: Any) -> Any:
    """From the first version to the second; closed doors are of no interest any more."""
    return Door(100.0) if old["open"] else None


@pytest.fixture
def changelog(stores: MakeStores) -> Changelog:
    """Of a table of the first version."""
    changelog, table = Changelog(), first_table(stores)
    changelog.restore(table)
    table.update(0, {DoorKey("hall", 2): Opened(True), DoorKey("hall", 10): Opened(False)}, at=1_000)
    changelog.commit(table)
    table.forget(0)
    return changelog


@pytest.fixture
def closing() -> Iterator[list[KeyValue[Any, Any]]]:
    """Tables to be closed."""
    tables: list[KeyValue[Any, Any]] = []
    yield tables
    for table in tables:
        table.close()


def test_older_values_are_migrated(stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]]) -> None:
    """One by one, at once to be read, and written with the next commit; what they were written at stays."""
    table = second_table(stores, width)
    closing.append(table)
    changelog.restore(table)
    assert list(table.range(0)) == [(DoorKey("hall", 2), Door(100.0))]
    changelog.commit(table)
    table.forget(0)

    changelog.restore(table)

    assert list(table.range(0)) == [(DoorKey("hall", 2), Door(100.0))]
    assert table.get(0, DoorKey("hall", 2), at=61_000) is None
    entries = {key: value for key, value in changelog.newest().items() if key != b"\0digest"}
    assert entries == {b'["hall",2]': b'1000 {"width":100.0}', b"\0time": b"1000", b"\0version": b"2"}


def test_newer_values_are_refused(stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]]) -> None:
    """By a program that does not know them."""
    newer, older = second_table(stores, width), first_table(stores)
    changelog.restore(newer)
    changelog.commit(newer)
    newer.forget(0)
    closing.append(older)

    with pytest.raises(TableUnreadable, match=r"written by version 2 of table door, this .* 1: .*start over"):
        changelog.restore(older)


@pytest.mark.parametrize("migrate", [lambda old: {"width": "wide"}, lambda old: old["no such field"]])
def test_value_that_does_not_migrate(
    stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]], migrate: Callable[[Any], Any]
) -> None:
    """Its key is named, and the way out."""
    table = second_table(stores, migrate)
    closing.append(table)
    with pytest.raises(TableUnreadable, match=r'key \["hall",\d+\]: .*start over'):
        changelog.restore(table)


@pytest.mark.parametrize("value", [b'1000 {"open":"wide"}', b'{"open":true}', b"1000 torn"])
def test_value_that_does_not_fit(
    stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]], value: bytes
) -> None:
    """A damaged value, or one of before there was a time to live: its key is named, and the way out."""
    changelog.append({b'["hall",7]': value, b"\0digest": b"7"})
    table = first_table(stores)
    closing.append(table)
    for _ in range(2):
        with pytest.raises(TableUnreadable, match=r'\["hall",7\].*start over'):
            changelog.restore(table)


def test_another_type_of_the_same_version(
    stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]]
) -> None:
    """A forgotten version is noticed when the table is restored, not when an agent reads."""
    table = KeyValue.typed("door", key=DoorKey, value=Door, stores=stores(), ttl=60)
    closing.append(table)
    with pytest.raises(TableUnreadable, match=r'\["hall",\d+\].*width'):
        changelog.restore(table)


def test_time_to_live_that_was_taken_away(
    stores: MakeStores, changelog: Changelog, closing: list[KeyValue[Any, Any]]
) -> None:
    """Values would be read with their time in front."""
    table: KeyValue[Any, bytes] = KeyValue("door", bytes, bytes, stores=stores())
    closing.append(table)
    with pytest.raises(TableUnreadable, match="kept with a time to live"):
        changelog.restore(table)


def test_what_could_not_be_read_is_not_written() -> None:
    """JSON has no NaN."""
    table = KeyValue.typed("door", key=DoorKey, value=Door)
    table.update(0, {DoorKey("hall", 1): Door(float("nan"))})
    with pytest.raises(msgspec.ValidationError):
        table.changes(0)


class Place(NamedTuple):
    """A key of another kind."""

    name: str


@dataclass(frozen=True)
class Spot:
    """And another."""

    number: int


@pytest.mark.parametrize(
    ("kind", "key"),
    [(Place, Place("hall")), (Spot, Spot(-3)), (tuple[str, int], ("hall", 3)), (DoorKey, DoorKey("", 0))],
)
def test_kinds_of_keys(stores: MakeStores, closing: list[KeyValue[Any, Any]], kind: Any, key: Any) -> None:
    """Each comes back as what it was."""
    changelog = Changelog()
    table: KeyValue[Any, dict[str, int]] = KeyValue.typed("place", key=kind, value=dict[str, int], stores=stores())
    closing.append(table)
    changelog.restore(table)
    table.update(0, {key: {"b": 1, "a": 2}})
    changelog.commit(table)

    assert list(table.range(0)) == [(key, {"a": 2, "b": 1})]
    assert list(table.view(0)) == [key]
    assert b'{"a":2,"b":1}' in changelog.newest().values()
    assert table.rows(changelog.newest())


def test_every_mistake_is_named() -> None:
    """Parts that have no order, and steps that are missing."""
    with pytest.raises(ConfigError) as raised:
        KeyValue.typed("door", key=tuple[str, float], value=Door, version=3, migrate={2: width})

    assert list(raised.value.mistakes) == [
        "table door: key_1 of a key is <class 'float'>, it can be str or int",
        "table door has version 3 and no migration from version 1",
    ]


class Fresh:
    """Sends each value that is not in the table; it is forgotten after 10 s."""

    name = "fresh"
    topic = "in"

    def __init__(self) -> None:
        self.table = KeyValue.typed("fresh", key=tuple[str], value=int, ttl=10)
        self.tables = (self.table,)

    def process(self, batch: Batch) -> None:
        seen = self.table.draft(batch)
        for row, record in enumerate(batch):
            value = record.value or b""
            key = (value.decode(),)
            if seen.get(key, row) is None:
                batch.send("out", b"k", b"%b %d" % (value, len(list(seen.range(None, None, row)))), row=row)
                seen.put(key, 1, row)


def test_expiry_does_not_depend_on_batches() -> None:
    """Entries expire in the middle of a batch as they do between two, also where append times go back."""
    times = [0, 1, 5, 3, 9, 10, 10, 14, 12, 15, 20, 40]
    values = [b"a", b"b", b"a", b"c", b"a", b"a", b"b", b"b", b"c", b"c", b"a", b"c"]
    records = Records([b"k"] * len(times), list(values), [1000 * time for time in times])
    whole = drive(Fresh(), records).sent

    assert [record.value for record in whole["out"]] == [b"a 0", b"b 1", b"c 2", b"a 2", b"b 2", b"c 2", b"a 2", b"c 0"]
    for size in (1, 2, 3, 5):
        sizes = [size] * len(times)
        assert drive(Fresh(), records, batch_sizes=sizes).sent == whole
        assert drive(Fresh(), records, batch_sizes=sizes, restart=Fresh).sent == whole


def test_expired_entries_are_deleted(stores: MakeStores, closing: list[KeyValue[Any, Any]]) -> None:
    """A bounded number per commit, until none is left in the changelog."""
    changelog, table = Changelog(), KeyValue.typed("fresh", key=tuple[int], value=int, ttl=1, stores=stores())
    closing.append(table)
    changelog.restore(table)
    table.update(0, {(number,): number for number in range(2_500)}, at=0)
    changelog.commit(table)
    table.update(0, {(7,): 7}, at=5_000)
    left = []
    for _ in range(4):
        changelog.commit(table)
        left.append(sum(key.startswith(b"[") for key in changelog.newest()))
        assert list(table.range(0)) == [((7,), 7)]

    assert left == [1_501, 501, 1, 1]


def test_entry_that_is_written_again_lives_on(stores: MakeStores, closing: list[KeyValue[Any, Any]]) -> None:
    """It is deleted when its last write is long ago, not its first; after a restart too."""
    changelog, table = Changelog(), KeyValue.typed("fresh", key=tuple[int], value=int, ttl=1, stores=stores())
    closing.append(table)
    changelog.restore(table)
    for at in (0, 900, 1_500, 1_899):
        if at < 1_000:
            table.update(0, {(7,): at}, at=at)
        table.update(0, {}, at=at)
        changelog.commit(table)
        changelog.restore(table)
        assert table.get(0, (7,)) == min(at, 900)

    table.update(0, {}, at=1_900)
    changelog.commit(table)
    assert list(table.range(0)) == []
    assert changelog.newest().keys() <= {b"\0time", b"\0digest"}
