"""The identity table of ingest (DESIGN 4.7): what was accepted of late, by partition and device type."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.tables.seen_block import TIME_BITS, TIME_MASK, decode_block
from headrace.tables.seen_devices import Judged, Messages, SeenDevices

_SEPARATOR = b"\0"


class Seen:
    """Changelog-backed memory of accepted readings; `judge` says what a message is.

    One changelog entry holds the readings of a batch, or of several; a key is the device type's name, NUL, and 8 bytes.
    Identity includes the device type, as does the table that a reading is stored in.

    Args:
        horizon: how far behind its device's clock a message is still compared, seconds; see `SeenDevices`.
        max_ahead: how far ahead of its append a message without a time may be put, seconds.
    """

    name = "seen"

    def __init__(self, horizon: float = 600.0, max_ahead: float = 300.0) -> None:
        self._horizon_ms = round(horizon * 1000)
        self._max_ahead_ms = round(max_ahead * 1000)
        self._tables: dict[int, dict[str, SeenDevices]] = {}
        self._restoring: dict[int, dict[str, dict[bytes, bytes]]] = {}

    def judge(self, partition: int, device_type: str, messages: Messages) -> Judged:
        """Decide on messages of one device type, in log order; remembered only when `Judged.apply` is called."""
        return self._table(partition, device_type).judge(messages)

    def count(self, partition: int) -> int:
        """Readings kept for a partition."""
        return sum(map(len, self._tables.get(partition, {}).values()))

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """See `headrace.engine.operator.State`."""
        waiting = self._restoring.setdefault(partition, {})
        for key, value in entries:
            device_type, _, block = key.partition(_SEPARATOR)
            waiting.setdefault(device_type.decode(), {})[block] = value

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        self._tables.pop(partition, None)
        for device_type, entries in self._restoring.pop(partition, {}).items():
            self._table(partition, device_type).restore(entries)

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`: the readings of each block; a reading may be in several."""
        for key in sorted(entries):
            device_type, _, block_key = key.partition(_SEPARATOR)
            if not block_key:
                continue  # the epoch
            names: dict[str, int] = {}
            block = decode_block(entries[key], names)
            devices = list(names)
            for row, code in enumerate(block.codes.tolist()):
                yield {
                    "device_type": device_type.decode(),
                    "device_id": devices[code >> TIME_BITS],
                    "time": code & TIME_MASK,
                    "measures": block.entry(row).measures,
                }

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """See `headrace.engine.operator.State`."""
        return {
            device_type.encode() + _SEPARATOR + key: value
            for device_type, table in self._tables.get(partition, {}).items()
            for key, value in table.changes().items()
        }

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        self._tables.pop(partition, None)
        self._restoring.pop(partition, None)

    def _table(self, partition: int, device_type: str) -> SeenDevices:
        tables = self._tables.setdefault(partition, {})
        table = tables.get(device_type)
        if table is None:
            table = tables[device_type] = SeenDevices(self._horizon_ms, max_ahead_ms=self._max_ahead_ms)
        return table
