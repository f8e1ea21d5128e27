"""Caps per contact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.caps import Cap, kept_for, next_free, parse_cap

CAPS = st.lists(st.builds(Cap, st.integers(1, 5), st.integers(1, 60)), max_size=3)


def breaks(sent: list[int], caps: list[Cap]) -> list[tuple[int, Cap]]:
    """Every stretch that has more than a cap allows: they begin with a message."""
    return [
        (start, cap)
        for cap in caps
        for start in sent
        if sum(start <= each < start + cap.within_ms for each in sent) > cap.most
    ]


def sent_in_time(wanted: list[int], caps: list[Cap]) -> list[int]:
    """Each as soon as it may be."""
    sent: list[int] = []
    for each in wanted:
        sent.append(next_free(sent, caps, max(each, sent[-1] if sent else 0)))
    return sent


@given(caps=CAPS, wanted=st.lists(st.integers(0, 200), max_size=25).map(sorted))
def test_no_stretch_has_more_than_a_cap_allows(caps: list[Cap], wanted: list[int]) -> None:
    """Whenever messages are wanted."""
    assert breaks(sent_in_time(wanted, caps), caps) == []


@given(caps=CAPS, wanted=st.lists(st.integers(0, 100), max_size=12).map(sorted), later=st.integers(0, 60))
def test_nobody_waits_for_longer_than_needed(caps: list[Cap], wanted: list[int], later: int) -> None:
    """One ms earlier a cap would be broken, or it is now."""
    sent = sent_in_time(wanted, caps)
    at_ms = max(sent, default=0) + later
    free = next_free(sent, caps, at_ms)

    assert free == at_ms or breaks([*sent, free - 1], caps)


@given(caps=CAPS, sent=st.lists(st.integers(0, 200), max_size=12), at_ms=st.integers(200, 300))
def test_what_is_older_than_kept_changes_nothing(caps: list[Cap], sent: list[int], at_ms: int) -> None:
    """So a table may forget it."""
    kept = [each for each in sent if each > at_ms - kept_for(caps)]

    assert next_free(kept, caps, at_ms) == next_free(sent, caps, at_ms)


def test_a_cap_is_read_as_it_is_written() -> None:
    """Both ways."""
    assert parse_cap("5/15m") == Cap(5, 900_000)
    assert str(parse_cap(" 21 / 3h")) == "21/3h"


@pytest.mark.parametrize("text", ["", "5", "0/1m", "5/", "-1/1m", "5/15", "20000/1m", "1/400d"])
def test_what_is_no_cap_is_refused(text: str) -> None:
    """With a sentence that has an example or a bound."""
    with pytest.raises(ValueError, match=r"as in|at most|1 to"):
        parse_cap(text)
