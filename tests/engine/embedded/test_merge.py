"""A compacted partition is what was committed to it, however far its changes are merged."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.engine.embedded import restore
from headrace.engine.errors import LogError
from tests.engine.embedded.compacted_log import TINY, CompactedLog, damage

keys = st.sampled_from([b"", b"\0", *(b"%02d" % number for number in range(30)), b"\xff" * 9])
values = st.none() | st.binary(max_size=9) | st.just(b"x" * 60)
change_sets = st.dictionaries(keys, values, min_size=1, max_size=8)


class CompactedStates(RuleBasedStateMachine):
    """A partition, two processes that write to it in turns, and the dictionary that it must be."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.expected: dict[bytes, bytes] = {}
        self.log, self.other = CompactedLog(self.folder), CompactedLog(self.folder)

    @rule(entries=change_sets)
    def commit(self, entries: dict[bytes, bytes | None]) -> None:
        self.log.commit(entries)
        for key, value in entries.items():
            self.expected.pop(key, None)
            if value is not None:
                self.expected[key] = value

    @rule(entries=change_sets)
    def commit_and_merge(self, entries: dict[bytes, bytes | None]) -> None:
        self.commit(entries)
        self.log.step()

    @rule(steps=st.integers(1, 12))
    def merge(self, steps: int) -> None:
        for _ in range(steps):
            self.log.step()

    @rule()
    def delete_everything(self) -> None:
        if self.expected:
            self.commit(dict.fromkeys(self.expected))

    @rule()
    def crash(self) -> None:
        self.log.close()
        self.log = CompactedLog(self.folder)

    @rule()
    def the_other_process_goes_on(self) -> None:
        self.log, self.other = self.other, self.log

    @rule(chunk=st.integers(1, 5))
    def restore_while_it_is_merged(self, chunk: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(restore, "CHUNK", chunk)
            entries = self.log.restored()
        assert dict(entries) == self.expected
        assert len(entries) == len(self.expected)

    @invariant()
    def reads_are_right_between_any_two_transactions(self) -> None:
        newest = {key: self.log.value(key) for key in [*self.expected, b"", b"00", b"29", b"none"]}
        assert newest == {key: self.expected.get(key) for key in newest}

    @invariant()
    def books_are_kept(self) -> None:
        pending, size, kept, _ = self.log.state()
        assert (pending, size) == self.log.counts()
        assert kept == sum(entries for _, entries in self.log.blocks())
        if not pending:
            assert kept == len(self.expected)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.log.close()
            self.other.close()
            shutil.rmtree(self.folder)


@pytest.mark.states
def test_reads_are_right_between_any_two_transactions(pytestconfig: pytest.Config) -> None:
    """Random change sets, merges, crashes and two writers: what is read is what was committed."""
    examples = pytestconfig.getoption("--examples")
    state_machine = CompactedStates.TestCase
    state_machine.settings = settings(max_examples=max(10, examples // 10), stateful_step_count=30)
    state_machine().runTest()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CompactedLog]:
    log = CompactedLog(tmp_path)
    yield log
    log.close()


def merge_all(log: CompactedLog) -> int:
    """Step until nothing is due; how many it took."""
    steps = 0
    while True:
        before = log.state(), log.blocks(), log.counts()
        log.step()
        runs_loaded = log.merger._runs is not None
        if (log.state(), log.blocks(), log.counts()) == before and not runs_loaded:
            return steps
        steps += 1


def test_few_changes_stay_as_they_are(log: CompactedLog) -> None:
    """Merging waits until there is enough to be worth it."""
    log.commit({b"a": b"1", b"b": b"2", b"c": b"3"})

    assert merge_all(log) == 0

    assert log.counts()[0] == 3


def test_blocks_divide_the_keys(log: CompactedLog) -> None:
    """Blocks that grow are split, empty ones go, and a key before all of them finds its place."""
    log.commit({b"%03d" % number: b"x" * 10 for number in range(100, 200)})
    merge_all(log)
    blocks = log.blocks()
    assert len(blocks) > 20
    assert max(entries for _, entries in blocks) < 6

    log.commit({b"%03d" % number: None for number in range(100, 199)})
    merge_all(log)
    assert log.blocks() == [(blocks[-1][0], 1)]

    first: dict[bytes, bytes | None] = {b"%03d" % number: b"y" for number in range(4)}
    log.commit(first)
    merge_all(log)
    assert log.restored() == [*first.items(), (b"199", b"x" * 10)]
    assert log.state() == (0, 0, 5, None)


def test_rows_of_a_later_merge_are_not_taken_for_those_of_an_earlier(tmp_path: Path) -> None:
    """A process that was half-way when another finished the merge, and began the next one, starts anew."""
    first, second = CompactedLog(tmp_path), CompactedLog(tmp_path)
    first.commit({b"%d" % number: b"old" for number in range(8)})
    for _ in range(4):
        first.step()
    merge_all(second)
    second.commit({b"%d" % number: b"new" for number in range(8)})

    for _ in range(40):
        second.step()
        first.step()

    assert dict(first.restored()) == {b"%d" % number: b"new" for number in range(8)}
    assert first.counts() == (0, 0)
    first.close()
    second.close()


def test_large_change_sets_lie_in_several_rows(log: CompactedLog) -> None:
    """No row holds more than is good to have in memory at once; the order stays."""
    many = {b"%06d" % number: b"" for number in range(50_000)}
    large = {b"%d" % number: bytes(9 << 20) for number in range(4)}

    log.commit(many)
    log.commit(large)

    sizes = [size for (size,) in log.connection.execute("SELECT entries FROM changes ORDER BY id")]
    assert sizes == [20_000, 20_000, 10_000, 2, 2]
    assert dict(log.restored()) == {**many, **large}


def test_bytes_make_a_merge_due(tmp_path: Path) -> None:
    """Few large entries are merged before they fill memory."""
    log = CompactedLog(tmp_path, TINY._replace(least=1000, most_bytes=100_000))

    for number in range(30):
        log.commit({b"%d" % (number % 3): bytes(10_000)})
        log.step()

    assert log.counts()[1] < 250_000
    assert log.state()[2] == 3
    log.close()


def test_the_log_does_not_grow_when_changes_come_fast(tmp_path: Path) -> None:
    """Steps become longer until merging keeps up, however many changes a commit has."""
    log = CompactedLog(tmp_path, TINY._replace(seconds=0.5))
    longest = 0

    for number in range(300):
        log.commit({b"%d" % each: b"%d" % number for each in range(40)})
        log.step()
        longest = max(longest, log.counts()[0])

    assert longest < 10 * 40
    log.close()


@pytest.mark.parametrize("table", ["changes", "blocks"])
def test_torn_rows_are_an_error(log: CompactedLog, table: str) -> None:
    """What cannot be read is an error that says what to do, for readers and for the merge."""
    log.commit({b"%d" % number: b"x" for number in range(8)})
    merge_all(log)
    log.commit({b"%d" % number: b"x" for number in range(8)})
    damage(log.connection, table)

    with pytest.raises(LogError, match="restore the data folder from a copy"):
        log.restored()
    with pytest.raises(LogError, match="restore the data folder from a copy"):
        merge_all(log)
