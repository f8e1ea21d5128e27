"""Sessions: readings of a device that are less than a gap apart."""

from dataclasses import replace

from headrace.schemas.window import Session
from headrace.tables import sketches
from headrace.tables.aggregates import merge
from headrace.tables.spans import CLOSED, CORRECTION, RETRACTION, UNSENT, Content, Emission, Entry, Reading, Spans


class Sessions(Spans):
    """The sessions of one device. A session ends one gap after its last reading; an entry is a session, by its start.

    A reading that lies between two sessions makes them one. Those of them that were sent already are retracted, but
    for one that keeps its start and stays closed: that is corrected. A session that silence closed goes on when its
    device speaks again before its end: it is retracted, and closed anew later.
    """

    def take(self, reading: Reading) -> tuple[list[Emission], int | None]:
        assert isinstance(self.window, Session)
        gap, time = self.window.gap_ms, reading.time
        self.drop_final(reading.clock, reading.mark)
        parts = sorted((e for e in self.entries.values() if e.start - gap < time < e.end), key=lambda e: e.start)
        if not parts and self.rules.is_final(time + gap, reading.clock, reading.mark):
            return [], time + gap
        start = min(time, *(part.start for part in parts)) if parts else time
        end = max(time + gap, *(part.end for part in parts)) if parts else time + gap
        is_open = max(reading.clock, time) < end
        same = next((part for part in parts if part.start == start), None)
        content = self.folded(self._merged(parts, len(reading.values)), [(time, reading.values)])
        session = Entry(start, end, is_open, same.revision if same else UNSENT, 0, content)

        emissions = []
        for part in parts:
            del self.entries[part.start, 0]
            if part.revision > UNSENT and not part.is_open and (is_open or part is not same):
                retracted = replace(part, revision=part.revision + 1)
                emissions.append(self.emission(reading.row, RETRACTION, retracted))
                if part is same:
                    session = replace(session, revision=retracted.revision)
        if not is_open:
            session = replace(session, revision=session.revision + 1)
            previous = same.content if same and session.revision > 0 else None
            emissions.append(self.emission(reading.row, CORRECTION if previous else CLOSED, session, previous))
        self.entries[start, 0] = session
        return emissions, None

    def _merged(self, parts: list[Entry], measures: int) -> Content:
        whole = self.empty(measures)
        for part in parts:
            content = self.padded(part.content, measures)
            merged = content.sketches
            if merged.shape[1]:
                merged = sketches.merged(whole.sketches, merged)
            whole = Content(merge(whole.values, content.values), merged)
        return whole
