"""A table is what its changelog says, whatever happens to either, and expires by its own time; on each store."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.tables.keyvalue import KeyValue
from headrace.tables.rocks import RocksStores
from tests.tables.changelog import Changelog

#: Of the table that expires, seconds.
TTL = 0.02

keys = st.tuples(st.sampled_from(["", "a", "a\0", "b", "ä"]), st.sampled_from([-5, 0, 3, 300]))
ends = st.none() | keys | st.tuples(st.sampled_from(["", "a", "b"]))
values = st.none() | st.text(max_size=3)
Key = tuple[str, int]


class Oracle:
    """A dictionary of (time of writing, value) that expires."""

    def __init__(self, ttl: int | None) -> None:
        self.ttl = ttl
        self.time = 0
        self.entries: dict[Key, tuple[int, str]] = {}

    def update(self, changes: dict[Key, str | None], at: int) -> None:
        self.time = max(self.time, at)
        for key, value in changes.items():
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = self.time, value

    def live(self, at: int = 0) -> dict[Key, str]:
        now = max(self.time, at)
        return {k: v for k, (written, v) in self.entries.items() if self.ttl is None or now - written < self.ttl}

    def copy(self) -> "Oracle":
        other = Oracle(self.ttl)
        other.time, other.entries = self.time, dict(self.entries)
        return other


class TableStates(RuleBasedStateMachine):
    """One partition of a table, its changelog, and what both must be."""

    on_disk = False

    @initialize(ttl=st.none() | st.just(TTL))
    def begin(self, ttl: float | None) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ttl = ttl
        self.changelog = Changelog()
        self.committed = Oracle(None if ttl is None else round(ttl * 1000))
        self.now = self.committed.copy()
        self.backup = self.changelog.copy(), self.committed.copy()
        self.table = self.make()
        self.changelog.restore(self.table)

    def make(self, on_disk: bool | None = None) -> KeyValue[Key, str]:
        on_disk = self.on_disk if on_disk is None else on_disk
        stores = RocksStores(self.folder / "tables") if on_disk else None
        return KeyValue("test", str.encode, bytes.decode, ttl=self.ttl, stores=stores)

    @rule(changes=st.dictionaries(keys, values, max_size=4), at=st.integers(0, 60))
    def update(self, changes: dict[Key, str | None], at: int) -> None:
        self.table.update(0, changes, at=at)
        self.now.update(changes, at)

    @rule(later=st.integers(0, 30))
    def time_passes(self, later: int) -> None:
        self.table.update(0, {}, at=self.now.time + later)
        self.now.update({}, self.now.time + later)

    @rule()
    def commit(self) -> None:
        self.changelog.commit(self.table)
        self.committed = self.now.copy()

    @rule()
    def commit_and_die_before_the_store(self) -> None:
        self.changelog.append(self.table.changes(0))
        self.committed = self.now.copy()
        self.restart()

    @rule()
    def refused_commit(self) -> None:
        self.table.changes(0)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.table.forget(0)
        self.table = self.make()
        self.changelog.restore(self.table)
        self.now = self.committed.copy()

    @rule()
    def same_worker_restores_again(self) -> None:
        self.table.forget(0)
        self.changelog.restore(self.table)
        self.now = self.committed.copy()

    @rule(changes=st.dictionaries(keys, values, max_size=4), at=st.integers(0, 60))
    def another_worker_has_it_for_a_while(self, changes: dict[Key, str | None], at: int) -> None:
        self.table.forget(0)
        other = self.make(on_disk=False)
        self.changelog.restore(other)
        other.update(0, changes, at=at)
        self.changelog.commit(other)
        self.committed.update(changes, at)
        self.restart()

    @rule(forget_deletions=st.booleans())
    def compact(self, forget_deletions: bool) -> None:
        self.changelog.compact(forget_deletions=forget_deletions)

    @rule()
    def back_up(self) -> None:
        self.backup = self.changelog.copy(), self.committed.copy()

    @rule()
    def put_back(self) -> None:
        self.changelog, self.committed = self.backup[0].copy(), self.backup[1].copy()
        self.restart()

    @rule()
    def make_anew(self) -> None:
        self.changelog, self.committed = Changelog(), Oracle(self.committed.ttl)
        self.restart()

    @precondition(lambda self: self.on_disk)
    @rule()
    def lose_the_folder(self) -> None:
        self.table.forget(0)
        shutil.rmtree(self.folder / "tables")
        self.restart()

    @rule(first=ends, last=ends, at=st.integers(0, 60))
    def read(self, first: Any, last: Any, at: int) -> None:
        expected = [
            (key, value)
            for key, value in sorted(self.now.live(at).items())
            if (first is None or key >= first) and (last is None or key[: len(last)] <= last)
        ]
        assert list(self.table.range(0, first, last, at=at)) == expected
        for key, value in expected:
            assert self.table.get(0, key, at=at) == value

    @invariant()
    def table_is_what_it_must_be(self) -> None:
        if hasattr(self, "table"):
            assert dict(self.table.view(0)) == self.now.live()

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.table.forget(0)
            shutil.rmtree(self.folder)


class DiskStates(TableStates):
    """The same with a store on disk."""

    on_disk = True


@pytest.mark.parametrize("machine", [TableStates, DiskStates])
def test_table_equals_its_changelog(machine: type[TableStates]) -> None:
    """A dictionary that is committed, refused, restored, expired and read like the table is always the same."""
    case = machine.TestCase
    case.settings = settings(max_examples=40 if machine is TableStates else 6, stateful_step_count=20)
    case().runTest()
