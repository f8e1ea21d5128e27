"""The ledger's counters on Kafka: a compacted topic in which every writer keeps its own totals."""

import os
from collections.abc import Iterable, Mapping

import msgspec

from headrace.engine.log import Append, Tally, TopicPartition, TopicSpec
from headrace.engine.records import Records

TOPIC = TopicSpec("headrace.tallies", 1, compacted=True)
PARTITION = TopicPartition(TOPIC.name, 0)


class Tallies:
    """Counts what one queue of commits appended, in the same transaction as the appends.

    A writer knows only its own totals: every queue of commits is one, told apart by a random name, and the sum over
    writers is the count. A key is (topic, writer, minute, device type).
    """

    def __init__(self) -> None:
        self._writer = os.urandom(8).hex()
        self._totals: dict[tuple[str, Tally], int] = {}

    def added(self, appends: Iterable[Append]) -> dict[tuple[str, Tally], int]:
        """The totals with these appends; `keep` them once they are committed."""
        new: dict[tuple[str, Tally], int] = {}
        for append in appends:
            for tally, count in append.tallies.items():
                key = (append.target.topic, tally)
                new[key] = new.get(key, self._totals.get(key, 0)) + count
        return new

    def keep(self, totals: dict[tuple[str, Tally], int]) -> None:
        """These were committed."""
        self._totals |= totals

    def records(self, totals: dict[tuple[str, Tally], int], now_ms: int) -> Records:
        """What to write for `totals`."""
        keys: list[bytes | None] = [
            msgspec.json.encode((topic, self._writer, tally.minute_ms, tally.device_type)) for topic, tally in totals
        ]
        values: list[bytes | None] = [str(count).encode() for count in totals.values()]
        return Records(keys, values, [now_ms] * len(keys))


def summed(entries: Mapping[bytes, bytes], topic: str) -> dict[Tally, int]:
    """The counters of `topic`, over all writers."""
    sums: dict[Tally, int] = {}
    for key, value in entries.items():
        of, _, minute_ms, device_type = msgspec.json.decode(key, type=tuple[str, str, int, str])
        if of == topic:
            tally = Tally(minute_ms, device_type)
            sums[tally] = sums.get(tally, 0) + int(value)
    return sums
