"""Counts of duplicates and conflicts."""

from headrace.engine.log import Tally
from headrace.tables.counters import Counters

A, B = Tally(60_000, "tilt"), Tally(120_000, "pump")


def test_counts_add_up_over_partitions_and_restarts() -> None:
    """Totals are the sum over partitions; a restored table goes on counting."""
    counters, again = Counters(), Counters()
    counters.add(0, {A: {"duplicate": 2}})
    counters.add(0, {A: {"duplicate": 1, "conflict": 1}, B: {"conflict": 5}})
    counters.add(1, {A: {"duplicate": 10}})

    for partition in (0, 1):
        entries = [(key, value) for key, value in counters.changes(partition).items() if value is not None]
        again.restore(partition, entries)
        again.restored(partition)
    again.add(1, {B: {"duplicate": 1}})

    assert counters.totals() == {A: {"duplicate": 13, "conflict": 1}, B: {"conflict": 5}}
    assert again.totals() == {A: {"duplicate": 13, "conflict": 1}, B: {"conflict": 5, "duplicate": 1}}


def test_changes_are_told_once() -> None:
    """Each commit gets what changed since the last; a partition that is gone counts no more."""
    counters = Counters()
    counters.add(0, {A: {"duplicate": 2}})

    assert list(counters.changes(0).values()) == [b'{"duplicate":2}']
    assert counters.changes(0) == {}
    counters.forget(0)
    assert counters.totals() == {}
