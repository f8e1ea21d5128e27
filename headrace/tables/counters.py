"""The terms of the ledger that ingest decides: duplicates and conflicts, per minute of append time and device type."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from headrace.engine.log import Tally

Outcome = Literal["duplicate", "conflict"]

_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(tuple[int, str]).decode
_decode_value = msgspec.json.Decoder(dict[str, int]).decode


class Counters:
    """Changelog-backed counts of outcomes. About 300 bytes a minute in which something was counted; kept for good."""

    name = "outcomes"

    def __init__(self) -> None:
        self._counts: dict[int, dict[Tally, dict[str, int]]] = {}
        self._changed: dict[int, set[Tally]] = {}

    def add(self, partition: int, counts: Mapping[Tally, Mapping[Outcome, int]]) -> None:
        """Count up; called when a batch has finished."""
        known = self._counts.setdefault(partition, {})
        for tally, outcomes in counts.items():
            row = known.setdefault(tally, {})
            for outcome, count in outcomes.items():
                row[outcome] = row.get(outcome, 0) + count
        self._changed.setdefault(partition, set()).update(counts)

    def totals(self) -> dict[Tally, dict[str, int]]:
        """The counts of all partitions that are here; an outcome that did not happen is left out."""
        totals: dict[Tally, dict[str, int]] = {}
        for counts in self._counts.values():
            for tally, outcomes in counts.items():
                row = totals.setdefault(tally, {})
                for outcome, count in outcomes.items():
                    row[outcome] = row.get(outcome, 0) + count
        return totals

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """See `headrace.engine.operator.State`."""
        known = self._counts.setdefault(partition, {})
        for key, value in entries:
            known[Tally(*_decode_key(key))] = _decode_value(value)

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`."""
        for minute, device_type in sorted(map(_decode_key, entries)):
            counts = _decode_value(entries[_encode((minute, device_type))])
            yield {"device_type": device_type, "minute": minute, **counts}

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """See `headrace.engine.operator.State`."""
        changed = self._changed.pop(partition, set())
        return {_encode(tally): _encode(self._counts[partition][tally]) for tally in sorted(changed)}

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        self._counts.pop(partition, None)
        self._changed.pop(partition, None)
