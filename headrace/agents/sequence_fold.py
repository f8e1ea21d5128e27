"""What a sequence number says beside those before it: in turn, after a gap, late, there before, or begun anew."""

from typing import Literal

import msgspec
from msgspec.structs import replace

#: Larger steps ahead are no gap but a new beginning; LoRaWAN 1.0 has the same limit (MAX_FCNT_GAP).
MAX_GAP = 16_384
#: Numbers behind the newest of which it is known whether they came.
WINDOW = 64
_MASK = (1 << WINDOW) - 1
#: Numbers that devices begin with.
_FIRST = (0, 1)

Outcome = Literal["received", "lost", "late", "repeat", "reset", "unusable"]
#: What is known of a message: that it is none of those before it, that it is one of them, or, where ingest refused it
#: or it is further behind than ingest remembers, neither; `again` is what a broker says it may have delivered before.
Told = Literal["distinct", "duplicate", "unknown", "again"]
Change = dict[Outcome, int]


class Counted(msgspec.Struct, frozen=True):
    """A stream so far; see `headrace.schemas.sequence.SequenceCounts`.

    Args:
        seen: bit n is whether the number n behind the last has come.
        known: numbers since the stream began, at most `WINDOW`: so many bits of `seen` may be of lost ones.
        began: event time of the message with which the device last began anew, ms.
    """

    last: int
    modulo: int
    received: int = 1
    lost: int = 0
    late: int = 0
    repeats: int = 0
    resets: int = 0
    seen: int = 1
    known: int = 1
    time: int | None = None
    began: int | None = None


def counted(
    before: Counted | None, number: int, modulo: int, time: int | None, told: Told = "distinct"
) -> tuple[Counted | None, Change]:
    """A stream with one message more, and what that changed, counts.

    With times on both a message is known to be an old one, or one of a device that begins anew. Without, one that
    is less than `WINDOW` behind is an old one, unless its number is 0 or 1 and was there before, or before the first.

    What may be a message that is sent again on its way does not count as a repeat, and never begins anew.

    Args:
        before: None for the first message.
        number: of the message, 0 or more and less than `modulo`.
        time: event time of the message, ms; None if nobody knows.
        told: whether it is one of those before.

    >>> counted(Counted(last=7, modulo=256), 10, 256, None)[1]
    {'received': 1, 'lost': 2}
    """
    if told == "duplicate" and not _is_another(before, number, modulo, time):
        return before, {}
    if before is None:
        return Counted(number, modulo, time=time), {"received": 1}
    step = (number - before.last) % modulo
    ahead, behind = (step, 0) if 0 < step <= _furthest(modulo) else (0, -step % modulo)
    if _is_of_earlier_run(before, ahead, -step % modulo, time, told) or (
        told in ("unknown", "again") and not ahead and _may_be_again(before, number, behind, time, told)
    ):
        return before, {}
    if before.modulo == modulo:
        if ahead:
            return _next(before, number, ahead, time)
        if _is_old(before, number, behind, time):
            return _old(before, behind)
    return _anew(before, number, modulo, time)


def _is_another(before: Counted | None, number: int, modulo: int, time: int | None) -> bool:
    """Whether a message that says nothing new is the next one all the same: clocks of devices may be coarse."""
    if before is None or time is None or before.modulo != modulo:
        return False
    return time == before.time and 0 < (number - before.last) % modulo < WINDOW


def _is_of_earlier_run(before: Counted, ahead: int, behind: int, time: int | None, told: Told) -> bool:
    """Whether it was sent before the device began anew: then its number says nothing about those of today.

    A step ahead that is small may be one of a device whose clock was set back, or without times what comes first of
    those that a broker was not sure about.
    """
    if behind < WINDOW:
        return False
    if time is not None and before.began is not None and time < before.began:
        return True
    is_older = told == "again" if time is None or before.time is None else time < before.time
    return is_older and ahead >= WINDOW


def _may_be_again(before: Counted, number: int, behind: int, time: int | None, told: Told) -> bool:
    """Whether nobody can say that a message, which is not ahead, is another than those that came."""
    if time is not None and before.time is not None:
        return time <= before.time and _seen(before, behind)
    return _seen(before, behind) and (behind < WINDOW or number not in _FIRST or told == "again")


def _is_old(before: Counted, number: int, behind: int, time: int | None) -> bool:
    """Whether a message that is not ahead was sent before the newest, rather than by a device that begins anew."""
    if time is not None and before.time is not None:
        return time <= before.time
    if behind == 0 or number not in _FIRST:
        return behind < WINDOW
    return behind < before.known and not _seen(before, behind)


def _seen(before: Counted, behind: int) -> bool:
    """Whether it came before; of what is further behind than `WINDOW` nobody knows, and a gap is not filled twice."""
    return behind >= WINDOW or bool(before.seen >> behind & 1)


def _old(before: Counted, behind: int) -> tuple[Counted, Change]:
    if _seen(before, behind):
        return replace(before, repeats=before.repeats + 1), {"repeat": 1}
    found = replace(before, received=before.received + 1, late=before.late + 1, seen=before.seen | 1 << behind)
    if behind >= before.known:
        # From before the first: nobody has counted it as lost.
        return found, {"received": 1, "late": 1}
    return replace(found, lost=before.lost - 1), {"received": 1, "lost": -1, "late": 1}


def _next(before: Counted, number: int, ahead: int, time: int | None) -> tuple[Counted, Change]:
    found = replace(
        before,
        last=number,
        received=before.received + 1,
        lost=before.lost + ahead - 1,
        seen=(before.seen << ahead | 1) & _MASK if ahead < WINDOW else 1,
        known=min(WINDOW, before.known + ahead),
        time=before.time if time is None else time,
    )
    return found, {"received": 1, "lost": ahead - 1} if ahead > 1 else {"received": 1}


def _anew(before: Counted, number: int, modulo: int, time: int | None) -> tuple[Counted, Change]:
    found = replace(
        before,
        last=number,
        modulo=modulo,
        received=before.received + 1,
        resets=before.resets + 1,
        seen=1,
        known=1,
        time=time,
        began=time,
    )
    return found, {"received": 1, "reset": 1}


def _furthest(modulo: int) -> int:
    """The largest step ahead that is a gap."""
    return min(MAX_GAP, modulo // 2)
