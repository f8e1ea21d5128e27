"""Rollups as the design words them: one record at a time over lists, looking at everything each time."""

import math
import statistics
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

SECOND = 1000
MINUTE = 60 * SECOND

#: Device, device type, event time (ms), measures.
Row = tuple[str, str, int, dict[str, float]]
Bounds = Callable[[int], list[tuple[int, int]]]


def fixed(size: int, hop: int | None = None) -> Bounds:
    """Bounds of the tumbling or hopping windows that hold a time."""

    def bounds(time: int) -> list[tuple[int, int]]:
        step = hop or size
        return [(start, start + size) for start in range((time - size) // step * step + step, time + 1, step)]

    return bounds


def days(zone: str) -> Bounds:
    """Bounds of the day in a time zone, by the calendar."""

    def bounds(time: int) -> list[tuple[int, int]]:
        day = datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).date()
        ends = [datetime.combine(each, datetime.min.time(), ZoneInfo(zone)) for each in (day, day + timedelta(1))]
        return [(round(ends[0].timestamp() * 1000), round(ends[1].timestamp() * 1000))]

    return bounds


class Window:
    """What is known of one window: who measured what in it, whether it is closed, and what was sent of it."""

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name, self.start, self.end = name, start, end
        self.samples: list[tuple[int, int, dict[str, float]]] = []
        self.closed = False
        self.revision = -1

    def measures(self) -> dict[str, Any]:
        aggregates = {}
        for name in sorted({name for _, _, measures in self.samples for name in measures}):
            samples = [(time, place, m[name]) for time, place, m in sorted(self.samples, key=_place) if name in m]
            total, values = 0.0, [value for _, _, value in samples]
            for value in values:
                total += value
            aggregates[name] = {
                "count": len(samples),
                "sum": total,
                "avg": total / len(samples),
                "min": min(values),
                "max": max(values),
                "first": min(samples)[2],
                "last": max(samples)[2],
                "variance": statistics.variance(values) if len(values) > 1 else None,
                "values": sorted(values),
            }
        return aggregates


def _place(sample: tuple[int, int, dict[str, float]]) -> int:
    return sample[1]


class Oracle:
    """Feed it records; `sent` and `late` are what a rollup must have sent then.

    Args:
        grid: windows on a grid, by name.
        sessions, sliding, counts: gap, length (ms) or size of the others, by name.
        grace, keep: ms.
        least: windows by name that a device type has not, being shorter than its cadence.
    """

    def __init__(
        self,
        grid: dict[str, Bounds],
        grace: int,
        keep: int,
        *,
        sessions: dict[str, int] | None = None,
        sliding: dict[str, int] | None = None,
        counts: dict[str, int] | None = None,
        skipped: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.grid, self.grace, self.keep, self.skipped = grid, grace, keep, set(skipped)
        self.sessions, self.sliding, self.counts = sessions or {}, sliding or {}, counts or {}
        self.watermark = -math.inf
        self.clocks: dict[tuple[str, str], float] = {}
        self.seen: dict[tuple[str, str], float] = {}
        self.windows: dict[tuple[str, str], list[Window]] = {}
        self.readings: dict[tuple[str, str], list[tuple[int, int, dict[str, float]]]] = {}
        self.filling: dict[tuple[str, str, str], Window] = {}
        self.sent: list[dict[str, Any]] = []
        self.late: list[tuple[str, set[str]]] = []
        self.out: list[dict[str, Any]] = []

    def feed(self, place: int, row: Row, at: int) -> None:
        device, device_type, time, measures = row
        who = (device, device_type)
        self.out = []
        clock, mark = self.clocks.get(who, -math.inf), self.watermark
        self.watermark = max(mark, time)
        self.close_silent(but=who)
        self.clocks[who] = max(clock, time)
        self.readings.setdefault(who, []).append((time, place, measures))
        missed = {
            *self.feed_grid(who, clock, mark, place, row),
            *self.feed_sessions(who, clock, mark, place, row),
            *self.feed_sliding(who, clock, mark, place, row),
        }
        self.feed_counts(who, place, row)
        for window in self.windows.get(who, []):
            if not window.closed and window.end <= self.clocks[who]:
                self.close(who, window)
        self.seen[who] = self.watermark
        self.flush(at)
        if missed:
            self.late.append((f"message-{place}", missed))

    def idle(self, elapsed: int, at: int) -> None:
        self.out = []
        self.watermark += elapsed
        self.close_silent()
        self.flush(at)

    def flush(self, at: int) -> None:
        self.sent += [{**document, "at": at} for document in self.out]

    def final(self, end: float, clock: float, mark: float) -> bool:
        return max(clock, mark - self.keep) >= end + self.grace

    def close_silent(self, but: tuple[str, str] | None = None) -> None:
        for who, windows in self.windows.items():
            for window in windows:
                due = max(window.end, min(self.seen[who], window.end + self.keep)) + self.grace
                if who != but and not window.closed and self.watermark >= due:
                    self.close(who, window)

    def close(self, who: tuple[str, str], window: Window) -> None:
        window.closed = True
        window.revision += 1
        self.send(who, window, "closed")

    def send(self, who: tuple[str, str], window: Window, kind: str, previous: dict[str, Any] | None = None) -> None:
        self.out.append(
            {
                "device_id": who[0],
                "device_type": who[1],
                "window": window.name,
                "start": window.start,
                "end": window.end,
                "kind": kind,
                "revision": window.revision,
                "measures": {} if kind == "retraction" else window.measures(),
                "previous": previous,
            }
        )

    def correct(self, who: tuple[str, str], window: Window, sample: tuple[int, int, dict[str, float]]) -> None:
        """Put a reading into a window, which is known to take it."""
        before = window.measures()
        window.samples.append(sample)
        if window.closed:
            window.revision += 1
            self.send(who, window, "correction", before)

    def find(self, who: tuple[str, str], name: str, start: int, end: int) -> Window:
        windows = self.windows.setdefault(who, [])
        for window in windows:
            if (window.name, window.start) == (name, start):
                return window
        windows.append(Window(name, start, end))
        return windows[-1]

    def feed_grid(self, who: Any, clock: float, mark: float, place: int, row: Row) -> Iterable[str]:
        for name, bounds in self.grid.items():
            if (who[1], name) in self.skipped:
                continue
            for start, end in bounds(row[2]):
                if self.final(end, clock, mark):
                    yield name
                else:
                    self.correct(who, self.find(who, name, start, end), (row[2], place, row[3]))

    def feed_sessions(self, who: Any, clock: float, mark: float, place: int, row: Row) -> Iterable[str]:
        time, windows = row[2], self.windows.setdefault(who, [])
        for name, gap in self.sessions.items():
            parts = [
                window
                for window in windows
                if window.name == name and window.start < time + gap and time < window.end
                and not self.final(window.end, clock, mark)
            ]  # fmt: skip
            if not parts and self.final(time + gap, clock, mark):
                yield name
                continue
            merged = Window(name, min([time, *(p.start for p in parts)]), max([time + gap, *(p.end for p in parts)]))
            merged.samples = [sample for part in parts for sample in part.samples] + [(time, place, row[3])]
            merged.closed = max(clock, time) >= merged.end
            before = None
            for part in parts:
                windows.remove(part)
                stays = part.start == merged.start
                if part.closed and not (stays and merged.closed):
                    part.revision += 1
                    self.send(who, part, "retraction", part.measures())
                if stays:
                    merged.revision, before = part.revision, part.measures()
            windows.append(merged)
            if merged.closed:
                merged.revision += 1
                self.send(who, merged, *(("correction", before) if merged.revision else ("closed",)))

    def feed_sliding(self, who: Any, clock: float, mark: float, place: int, row: Row) -> Iterable[str]:
        time, sample = row[2], (row[2], place, row[3])
        for name, size in self.sliding.items():
            windows = [window for window in self.windows.setdefault(who, []) if window.name == name]
            for window in windows:
                if window.start <= time < window.end and not self.final(window.end, clock, mark):
                    self.correct(who, window, sample)
            if self.final(time + 1, clock, mark):
                yield name
            elif not any(window.end == time + 1 for window in windows):
                window = self.find(who, name, time - size + 1, time + 1)
                window.samples = [each for each in self.readings[who] if window.start <= each[0] < window.end]

    def feed_counts(self, who: Any, place: int, row: Row) -> None:
        for name, size in self.counts.items():
            window = self.filling.setdefault((*who, name), Window(name, row[2], row[2] + 1))
            window.samples.append((row[2], place, row[3]))
            window.end = max(window.end, row[2] + 1)
            if len(window.samples) == size:
                self.close(who, self.filling.pop((*who, name)))
