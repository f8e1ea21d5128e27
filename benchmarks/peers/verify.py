"""Whether an engine sent the windows that it had to send."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from peers.readings import Aggregates, Fleet, Window

#: Mistakes that are shown.
SHOWN = 3


@dataclass(frozen=True)
class Verdict:
    """What is in the output topic.

    Args:
        windows: how many different ones are right.
        repeated: records that say what another one said; allowed unless exactly once was promised.
        mistakes: what is wrong, in words; empty when all is as it has to be.
    """

    windows: int
    repeated: int
    mistakes: tuple[str, ...]

    @property
    def verified(self) -> bool:
        return not self.mistakes


def verify(
    fleet: Fleet,
    records: Iterable[tuple[bytes, bytes]],
    read: Callable[[bytes, bytes], tuple[Window, Aggregates]],
    guarantee: str,
) -> Verdict:
    """Compare every record with what is expected: all windows, counts, sums, minima and maxima equal to the last bit.

    The windows of the last readings, which nothing closes, may be sent or not.
    """
    expected, closing = fleet.expected(), fleet.closing_window()
    seen: set[Window] = set()
    wrong: list[str] = []
    repeated = 0
    for key, value in records:
        try:
            window, aggregates = read(key, value)
        except (ValueError, LookupError, TypeError) as error:
            wrong.append(f"cannot be read: {value[:100]!r}: {error}")
            continue
        if window[1] == closing:
            continue
        if window not in expected:
            wrong.append(f"there is no window {window}")
        elif aggregates != expected[window]:
            wrong.append(f"{window} is {aggregates}, not {expected[window]}")
        elif window in seen:
            repeated += 1
        else:
            seen.add(window)
    mistakes = [f"{len(wrong)} wrong records"] * bool(wrong) + wrong[:SHOWN]
    if missing := len(expected) - len(seen):
        mistakes.append(f"{missing} of {len(expected)} windows are missing")
    if repeated and guarantee == "exactly-once":
        mistakes.append(f"{repeated} records are sent again")
    return Verdict(len(seen), repeated, tuple(mistakes))
