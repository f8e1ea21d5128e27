"""The table of watches: what is remembered of rules on devices, by device."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.watch import IDLE, Watch
from headrace.agents.alerting.work import Work

_NONE: Mapping[str, Watch] = {}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Watch).decode


class WatchTable:
    """Changelog-backed; an entry per rule and device whose condition is met, or is on the way to it or from it.

    Changelog: key `["<rule id>","<device type>","<device>"]`, value a `Watch` as JSON. In memory about 400 bytes per
    device with an entry, 150 per entry, and 120 per sample of evidence.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: By partition, then device type and device, then rule id.
        self._partitions: dict[int, dict[tuple[str, str], dict[str, Watch]]] = {}
        self._dirty: dict[int, set[Key]] = {}

    def of_device(self, partition: int, device_type: str, device_id: str) -> Mapping[str, Watch]:
        """Watches of a device by rule id; those that are not there are `IDLE`."""
        return self._partitions.get(partition, {}).get((device_type, device_id), _NONE)

    def entries(self, partition: int) -> Iterator[tuple[Key, Watch]]:
        """All watches that are not idle."""
        for (device_type, device_id), watches in self._partitions.get(partition, {}).items():
            for rule_id, watch in watches.items():
                yield (rule_id, device_type, device_id), watch

    def update(self, partition: int, entries: Mapping[Key, Watch]) -> None:
        """Set watches; for `Batch.on_finish`."""
        if not entries:
            return
        devices = self._partitions.setdefault(partition, {})
        self._dirty.setdefault(partition, set()).update(entries)
        for (rule_id, device_type, device_id), watch in entries.items():
            device = (device_type, device_id)
            if watch != IDLE:
                devices.setdefault(device, {})[rule_id] = watch
            elif device in devices:
                devices[device].pop(rule_id, None)
                if not devices[device]:
                    del devices[device]

    # -- committing and restoring, see `headrace.engine.operator.State`

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog, in any order and any number of calls."""
        devices = self._partitions.setdefault(partition, {})
        for key, value in entries:
            rule_id, device_type, device_id = orjson.loads(key)
            devices.setdefault((device_type, device_id), {})[rule_id] = _decode(value)

    def restored(self, partition: int) -> None:
        """All entries were given."""

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """Newest value per key changed since the last call; None deletes."""
        changed: dict[bytes, bytes | None] = {}
        for key in self._dirty.pop(partition, ()):
            watch = self.of_device(partition, key[1], key[2]).get(key[0])
            changed[orjson.dumps(key)] = None if watch is None else _encode(watch)
        return changed

    def rows(self, entries: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
        """See `headrace.engine.operator.Readable`."""
        for key in sorted(entries):
            names = dict(zip(("rule_id", "device_type", "device_id"), orjson.loads(key), strict=True))
            yield {**names, **msgspec.structs.asdict(_decode(entries[key]))}

    def forget(self, partition: int) -> None:
        """Drop the partition's watches."""
        self._partitions.pop(partition, None)
        self._dirty.pop(partition, None)


class WatchDraft:
    """The table as a batch changes it.

    Args:
        changed: watches as they are now, by key.
    """

    def __init__(self, table: WatchTable, partition: int) -> None:
        self._table = table
        self._partition = partition
        self.changed: dict[Key, Watch] = {}

    def get(self, key: Key) -> Watch:
        """What is remembered, as the batch has changed it."""
        found = self.changed.get(key)
        if found is None:
            return self._table.of_device(self._partition, key[1], key[2]).get(key[0], IDLE)
        return found

    def apply(self) -> None:
        """Change the table."""
        self._table.update(self._partition, self.changed)


def draft_of(work: Work, table: WatchTable) -> WatchDraft:
    """The draft of a batch, which is applied when the batch finishes; the same each time."""
    found = work.drafts.get(table.name)
    if found is None:
        found = work.drafts[table.name] = WatchDraft(table, work.partition)
        work.batch.on_finish(found.apply)
    draft: WatchDraft = found
    return draft
