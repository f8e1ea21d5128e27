"""How many messages a contact gets at most, and when the next one may go."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.schemas.window import duration, parse_duration

#: Messages that one cap may allow, count: so many moments are remembered per contact.
MOST_COUNTED = 10_000


class Cap(NamedTuple):
    """At most so many messages in any stretch of `within_ms`, from a moment until before another.

    Args:
        most: messages, count, at least 1.
        within_ms: ms.
    """

    most: int
    within_ms: int

    def __str__(self) -> str:
        return f"{self.most}/{duration(self.within_ms)}"


def parse_cap(text: str) -> Cap:
    """A cap as settings write it.

    Raises:
        ValueError: it is none; says how to write one.

    >>> parse_cap("5/15m")
    Cap(most=5, within_ms=900000)
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(.+)", text)
    if not found or not 1 <= int(found[1]) <= MOST_COUNTED:
        raise ValueError(f"{text!r} is no cap: write how many (1 to {MOST_COUNTED:,}) and in how long, as in 5/15m")
    return Cap(int(found[1]), parse_duration(found[2]))


def next_free(sent_ms: Sequence[int], caps: Iterable[Cap], at_ms: int) -> int:
    """The first moment from `at_ms` on at which one more message keeps every cap, ms.

    Args:
        sent_ms: when messages went to this contact, ms, in any order; those that are older than `kept_for` need not be
            there.
        caps: of the channel.
        at_ms: now.

    >>> next_free([0, 1_000], [Cap(2, 60_000)], 5_000)
    60000
    """
    sent, free = sorted(sent_ms), at_ms
    for most, within_ms in caps:
        if len(sent) >= most:
            free = max(free, sent[-most] + within_ms)
    return free


def kept_for(caps: Iterable[Cap]) -> int:
    """How long it matters when a message was sent, ms; 0 without caps."""
    return max((cap.within_ms for cap in caps), default=0)
