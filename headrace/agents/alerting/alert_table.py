"""The table of alerts: what is remembered per rule and device, and which of it is open."""

from collections.abc import Collection, Mapping, Sequence

from headrace.agents.alerting.standing import NOTHING, Standing
from headrace.tables.keyvalue import KeyValue

#: Rule id, device type, device id.
Key = tuple[str, str, str]


class AlertTable(KeyValue[Key, Standing]):
    """Changelog-backed; up to about 10 KiB per rule and device that have had an alert."""

    def __init__(self) -> None:
        super().__init__("alert.alerts", Standing.encode, Standing.decode, ("rule_id", "device_type", "device_id"))
        self._open: dict[int, set[Key]] = {}
        self._ids: dict[int, dict[str, Key]] = {}

    def key_of(self, partition: int, alert_id: str) -> Key | None:
        """The key under which an alert is, open or over; None if it is not the newest of its key."""
        return self._ids.get(partition, {}).get(alert_id)

    def open(self, partition: int) -> Collection[Key]:
        """Keys with an open alert, in no particular order."""
        return self._open.get(partition, ())

    def partitions(self) -> Sequence[int]:
        """Partitions with an open alert."""
        return [partition for partition, keys in self._open.items() if keys]

    def update(self, partition: int, entries: Mapping[Key, Standing | None], at: int | None = None) -> None:
        """See `KeyValue.update`; a standing with nothing in it is deleted."""
        kept = {key: None if each == NOTHING else each for key, each in entries.items()}
        opened, ids = self._open.setdefault(partition, set()), self._ids.setdefault(partition, {})
        view = self.view(partition)
        for key, standing in kept.items():
            before = view.get(key)
            if before is not None and before.alert is not None:
                ids.pop(before.alert.alertId, None)
            if standing is not None and standing.alert is not None:
                ids[standing.alert.alertId] = key
            if standing is not None and standing.open:
                opened.add(key)
            else:
                opened.discard(key)
        super().update(partition, kept, at)

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.Stored`."""
        super().restored(partition)
        found = {key: standing for key, standing in self.view(partition).items() if standing.alert is not None}
        self._open[partition] = {key for key, standing in found.items() if standing.open}
        self._ids[partition] = {each.alert.alertId: key for key, each in found.items() if each.alert is not None}

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        super().forget(partition)
        self._open.pop(partition, None)
        self._ids.pop(partition, None)
