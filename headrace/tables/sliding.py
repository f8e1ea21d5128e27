"""Sliding windows: for every reading of a device, the ones of the last so many seconds, as in Kafka Streams."""

from dataclasses import replace

import numpy as np

from headrace.schemas.window import Sliding
from headrace.tables.spans import CORRECTION, UNSENT, Content, Emission, Entry, Reading, Spans

#: `Entry.number`: whether the entry's time has a window; one that came too late for it, or has the time of another
#: entry, is in other windows only.
_WITHOUT, _WITH = 0, 1


class SlidingSpans(Spans):
    """The readings of one device, and the windows that end with them.

    An entry is a reading, by event time and offset; its content the reading's values. The window of a reading at `t`
    holds what was measured in (t − size, t], that is start <= event time < end. It is added up anew for each record, in
    log order: O(readings in the window).
    """

    def take(self, reading: Reading) -> tuple[list[Emission], int | None]:
        assert isinstance(self.window, Sliding)
        size, time = self.window.size_ms, reading.time
        self.drop_final(reading.clock, reading.mark)
        late = self.rules.is_final(time + 1, reading.clock, reading.mark)
        around = [
            (key, entry)
            for key, entry in self.entries.items()
            if entry.number == _WITH
            and time <= key[0] < time + size
            and not self.rules.is_final(entry.end, reading.clock, reading.mark)
        ]
        touched = [(key, entry, self.content(entry)) for key, entry in around if not entry.is_open]
        own = any(key[0] == time for key, _ in around)
        number = _WITHOUT if late or own else _WITH
        values = Content([[value] for value in reading.values], np.zeros((len(reading.values), 0), dtype=np.int64))
        entry = Entry(time - size + 1, time + 1, number == _WITH, UNSENT, number, values)
        self.entries[time, reading.offset] = entry

        emissions = []
        for key, other in around:
            if other.is_open:
                self.entries[key] = replace(other)  # an entry of its own says that the window changed
        for key, other, previous in touched:
            corrected = self.entries[key] = replace(other, revision=other.revision + 1)
            emissions.append(self.emission(reading.row, CORRECTION, corrected, previous))
        if entry.is_open and reading.clock >= entry.end:
            emissions.append(self.close(reading.row, (time, reading.offset), entry))
        return emissions, time + 1 if late else None

    def drop_final(self, clock: int, mark: int) -> None:
        assert isinstance(self.window, Sliding)
        size = self.window.size_ms
        for key in [key for key in self.entries if self.rules.is_final(key[0] + size, clock, mark)]:
            del self.entries[key]

    def content(self, entry: Entry) -> Content:
        inside = [(key, each) for key, each in self.entries.items() if entry.start <= key[0] < entry.end]
        inside.sort(key=lambda pair: pair[0][1])
        readings = [(key[0], [value for (value,) in each.content.values]) for key, each in inside]
        return self.folded(self.empty(max(len(values) for _, values in readings)), readings)
