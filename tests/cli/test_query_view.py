"""What `headrace query` prints."""

import pytest

from headrace.cli.query_view import show_conflicts
from headrace.connectors.timescale.answers import About, Completeness, Listed, Record

ABOUT = About("record", (), Completeness(as_of_ms=0))


def test_both_sides_of_a_conflict_look_different(capsys: pytest.CaptureFixture[str]) -> None:
    """Values that differ in the tenth digit, or only by being a boolean, are told apart."""
    document = {
        "measures": {"temperature": 20.000000001, "co2": 400.0},
        "accepted": {"temperature": 20.0, "co2": 400.0},
        "extra": {"open": 1},
        "accepted_extra": {"open": True},
    }

    show_conflicts(Listed([Record(0, "d", document)], None, ABOUT))

    out = capsys.readouterr().out
    assert "temperature 20.000000001, open 1 " in out
    assert "temperature 20, open true" in out
