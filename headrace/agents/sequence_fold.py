"""What a sequence number says beside those before it: in turn, after a gap, late, there before, or begun anew."""

from typing import Literal

import msgspec

#: Larger steps ahead are no gap but a new beginning; LoRaWAN 1.0 has the same limit (MAX_FCNT_GAP).
MAX_GAP = 16_384
#: Numbers behind the newest of which it is known whether they came.
WINDOW = 64
_MASK = (1 << WINDOW) - 1
#: Numbers that devices begin with.
_FIRST = (0, 1)

Outcome = Literal["received", "lost", "late", "repeat", "reset"]


class Counted(msgspec.Struct, frozen=True):
    """A stream so far; see `headrace.schemas.sequence.SequenceCounts`.

    Args:
        seen: bit n is whether the number n behind the last has come.
        known: bits of `seen` that mean something: numbers since the stream began, at most `WINDOW`.
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


def counted(before: Counted | None, number: int, modulo: int, time: int | None) -> tuple[Counted, dict[Outcome, int]]:
    """A stream with one message more, and what that changed, counts.

    With times on both a message is known to be an old one, or one of a device that begins anew. Without, one that
    is less than `WINDOW` behind, and not from before the first, is an old one, unless its number is 0 or 1.

    Args:
        before: None for the first message.
        number: of the message, 0 or more and less than `modulo`.
        time: event time of the message, ms; None if nobody knows.

    >>> counted(Counted(last=7, modulo=256), 10, 256, None)[1]
    {'received': 1, 'lost': 2}
    """
    if before is None:
        return Counted(number, modulo, time=time), {"received": 1}
    ahead = (number - before.last) % modulo
    if before.modulo == modulo:
        if 0 < ahead <= min(MAX_GAP, modulo // 2):
            return _next(before, number, ahead, time)
        behind = (modulo - ahead) % modulo
        if _is_old(before, number, behind, time):
            return _old(before, behind)
    return _anew(before, number, modulo, time)


def _is_old(before: Counted, number: int, behind: int, time: int | None) -> bool:
    """Whether a message that is not ahead was sent before the newest, rather than by a device that begins anew."""
    if time is not None and before.time is not None:
        return time <= before.time
    return behind == 0 or (behind < before.known and number not in _FIRST)


def _seen(before: Counted, behind: int) -> bool:
    """Whether it came before; of what is further behind than `WINDOW` nobody knows, and a gap is not filled twice."""
    return behind >= WINDOW or bool(before.seen >> behind & 1)


def _old(before: Counted, behind: int) -> tuple[Counted, dict[Outcome, int]]:
    if _seen(before, behind):
        return msgspec.structs.replace(before, repeats=before.repeats + 1), {"repeat": 1}
    found = msgspec.structs.replace(before, received=before.received + 1, late=before.late + 1)
    if behind >= before.known:
        # From before the first: nobody has counted it as lost.
        return found, {"received": 1, "late": 1}
    found = msgspec.structs.replace(found, lost=before.lost - 1, seen=before.seen | 1 << behind)
    return found, {"received": 1, "lost": -1, "late": 1}


def _next(before: Counted, number: int, ahead: int, time: int | None) -> tuple[Counted, dict[Outcome, int]]:
    found = msgspec.structs.replace(
        before,
        last=number,
        received=before.received + 1,
        lost=before.lost + ahead - 1,
        seen=(before.seen << ahead | 1) & _MASK if ahead < WINDOW else 1,
        known=min(WINDOW, before.known + ahead),
        time=before.time if time is None else time,
    )
    return found, {"received": 1, "lost": ahead - 1} if ahead > 1 else {"received": 1}


def _anew(before: Counted, number: int, modulo: int, time: int | None) -> tuple[Counted, dict[Outcome, int]]:
    found = msgspec.structs.replace(
        before,
        last=number,
        modulo=modulo,
        received=before.received + 1,
        resets=before.resets + 1,
        seen=1,
        known=1,
        time=time,
    )
    return found, {"received": 1, "reset": 1}
