"""What every transport promises to whoever knows a compacted partition as it was."""

from headrace.engine.log import Changes, Known, Log, TopicPartition, Transaction
from tests.contract.log_access import Names, numbers


class Copy:
    """Somebody's copy of a partition."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.pieces = 0
        self.brought = 0
        self.anew = 0

    async def catch_up(self, log: Log, target: TopicPartition, known: Known | None) -> None:
        """Bring it up to date."""
        async for piece in log.catch_up(target, known):
            self.pieces += 1
            self.brought += len(piece.entries)
            if piece.anew:
                self.anew += 1
                self.entries.clear()
            for key, value in piece.entries:
                if value is None:
                    self.entries.pop(key, None)
                else:
                    self.entries[key] = value


async def change(log: Log, target: TopicPartition, entries: dict[bytes, bytes | None], mark: bytes) -> Known:
    """Commit, and how far the partition is then known."""
    changes = {**entries, b"mark": mark}
    position = (await log.commit(Transaction(changes=[Changes(target, changes)])))[target]
    return Known(position, b"mark", mark)


class CatchUpPromises:
    """One promise, one test."""

    async def test_catching_up_from_nothing_brings_everything(self, log: Log, names: Names) -> None:
        """In pieces, the first of which says that it is from nothing; an empty partition has that one too."""
        empty, full = Copy(), Copy()
        await change(log, names.s0, dict.fromkeys(numbers(25_000), b"1"), b"a")
        await change(log, names.s0, {b"0": None, b"1": b"2"}, b"b")

        await empty.catch_up(log, names.s1, None)
        await full.catch_up(log, names.s0, None)

        assert (empty.entries, empty.anew, empty.pieces) == ({}, 1, 1)
        assert full.anew == 1
        assert full.entries == {**dict.fromkeys(numbers(24_999, 1), b"1"), b"1": b"2", b"mark": b"b"}

    async def test_who_knows_all_is_shown_the_last_entry(self, log: Log, names: Names) -> None:
        """It proves what is known."""
        known = await change(log, names.s0, dict.fromkeys(numbers(500), b"1"), b"a")
        copy = Copy()

        await copy.catch_up(log, names.s0, known)

        assert (copy.entries, copy.brought, copy.anew) == ({b"mark": b"a"}, 1, 0)

    async def test_who_missed_something_gets_it(self, log: Log, names: Names) -> None:
        """What changed since, deletions included, or all anew."""
        copy = Copy()
        first: dict[bytes, bytes | None] = {b"a": b"1", b"b": b"1"}
        known = await change(log, names.s0, first, b"a")
        copy.entries = {b"a": b"1", b"b": b"1", b"mark": b"a"}
        await change(log, names.s0, {b"b": None, b"c": b"1"}, b"b")

        await copy.catch_up(log, names.s0, known)

        assert copy.entries == {b"a": b"1", b"c": b"1", b"mark": b"b"}

    async def test_who_is_ahead_gets_everything_or_no_proof(self, log: Log, names: Names) -> None:
        """A copy of another log of the same name."""
        copy = Copy()
        copy.entries = {b"other": b"1", b"mark": b"z"}
        known = await change(log, names.s0, {b"a": b"1"}, b"a")

        await copy.catch_up(log, names.s0, Known(known.position + 1_000, b"mark", b"z"))

        assert (copy.entries, copy.anew) == ({b"a": b"1", b"mark": b"a"}, 1)
