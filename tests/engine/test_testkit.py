"""The test kit does with an operator what the app does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.batch import Batch
from headrace.engine.errors import CutBatch
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from tests.engine.runtime.cutting import Cutting, behind_rules


class Stubborn(Cutting):
    """Wants every batch cut behind its end."""

    def process(self, batch: Batch) -> None:
        raise CutBatch(len(batch))


def of(values: list[bytes]) -> Records:
    return Records([b"k"] * len(values), list(values), list(range(len(values))))


@given(
    values=st.lists(st.sampled_from([b"1", b"2", b"rule a", b"rule b"]), min_size=1),
    sizes=st.lists(st.integers(1, 5)),
)
def test_batches_are_cut_where_the_operator_says(values: list[bytes], sizes: list[int]) -> None:
    """Wherever batches end, the result is that of record by record."""
    driven = drive(Cutting(), of(values), batch_sizes=sizes)

    assert [record.value for record in driven.sent["out"]] == behind_rules(values)


def test_many_cuts_of_one_batch() -> None:
    """As many as it has records."""
    values = [b"rule %d" % number for number in range(2_000)]

    driven = drive(Cutting(), of(values))

    assert [record.value for record in driven.sent["out"]] == behind_rules(values)


def test_a_cut_that_leaves_nothing_is_raised() -> None:
    """It is a mistake of the operator, which a test is to see."""
    with pytest.raises(CutBatch, match="before record 3"):
        drive(Stubborn(), of([b"1", b"2", b"3"]))
