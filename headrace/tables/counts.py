"""Count windows: so many readings of a device, in the order of the log."""

from dataclasses import replace

from headrace.schemas.window import Count
from headrace.tables.spans import UNSENT, Emission, Entry, Key, Reading, Spans

_KEY: Key = (0, 0)


class Counts(Spans):
    """The window of one device that is filling up; it is closed when it is full, and takes no corrections.

    It starts at the event time of the first reading that came, and ends 1 ms after the latest in it. A reading that
    only completes an earlier one fills it no further; if no window has begun since, its values are in none.
    """

    closes_by_time = False

    def take(self, reading: Reading) -> tuple[list[Emission], int | None]:
        assert isinstance(self.window, Count)
        before = self.entries.get(_KEY)
        if before is None:
            if reading.completes:
                return [], None
            before = Entry(reading.time, reading.time + 1, False, UNSENT, 0, self.empty(len(reading.values)))
        entry = self.entries[_KEY] = replace(
            before,
            end=max(before.end, reading.time + 1),
            number=before.number + (not reading.completes),
            content=self.folded(self.padded(before.content, len(reading.values)), [(reading.time, reading.values)]),
        )
        if entry.number < self.window.size:
            return [], None
        closed = self.close(reading.row, _KEY, entry)
        del self.entries[_KEY]
        return [closed], None

    def drop_final(self, clock: int, mark: int) -> None:
        """Time does not matter here."""
