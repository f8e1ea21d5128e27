"""When a source with a schedule runs: `rate(5 minutes)`, as EventBridge writes it."""

import re

from headrace.engine.clock import Clock

MINUTE_MS = 60_000
UNITS_MS = {"minute": MINUTE_MS, "hour": 60 * MINUTE_MS, "day": 24 * 60 * MINUTE_MS}
_RATE = re.compile(r"rate\(\s*([1-9]\d{0,4})\s+(minute|hour|day)(s?)\s*\)")


def interval_ms(schedule: str) -> int:
    """The interval of a rate expression, ms.

    Raises:
        ValueError: it is none.

    >>> interval_ms("rate(5 minutes)"), interval_ms("rate(1 hour)")
    (300000, 3600000)
    """
    found = _RATE.fullmatch(schedule)
    if found is None or (found[1] == "1") == bool(found[3]):
        raise ValueError('must be like "rate(5 minutes)", "rate(1 hour)" or "rate(2 days)"')
    return int(found[1]) * UNITS_MS[found[2]]


class Ticks:
    """Moments that are an interval apart, counted from now on: what is done between them shifts none.

    Args:
        interval: milliseconds of `clock`.
        clock: its own time counts, virtual time too.
    """

    def __init__(self, interval: int, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._due = clock.now_ms()

    async def wait_next(self) -> int:
        """Wait for the first tick that has not passed yet; how many have since the last one that was waited for.

        Where somebody sets the clock back by more than an interval, ticks are counted anew from there.
        """
        passed = max(0, (self._clock.now_ms() - self._due) // self._interval)
        self._due += (passed + 1) * self._interval
        while (left := self._due - self._clock.now_ms()) > 0:
            if left > self._interval:
                self._due -= left - self._interval
                left = self._interval
            await self._clock.sleep(self._clock.real_seconds(left))
        return passed
