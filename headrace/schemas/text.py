"""Small helpers for messages that people read."""

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that was probably meant; empty when none is close.

    >>> near("temprature", ["temperature", "humidity"])
    "; did you mean 'temperature'?"
    """
    found = get_close_matches(name, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
