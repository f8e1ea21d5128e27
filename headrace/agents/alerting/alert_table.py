"""The table of alerts: what is remembered per rule and device, and which of it is open."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from headrace.agents.alerting.standing import NOTHING, Standing
from headrace.schemas.alert import Alert
from headrace.tables.keyvalue import KeyValue

#: Rule id, device type, device id.
Key = tuple[str, str, str]


class AlertTable(KeyValue[Key, Standing]):
    """Changelog-backed; up to about 10 KiB per rule and device that have had an alert."""

    def __init__(self) -> None:
        super().__init__("alert.alerts", Standing.encode, Standing.decode, ("rule_id", "device_type", "device_id"))
        self._open: dict[int, set[Key]] = {}
        self._ids: dict[int, dict[str, Key]] = {}
        #: Open ones by their device, and by its gateway.
        self._near: dict[int, dict[str, set[Key]]] = {}
        self._gateways: dict[int, Counter[str]] = {}
        self._epochs: Counter[int] = Counter()
        #: Ids of rules that are open, met, or blocked, by device type and device.
        self._alive: dict[int, dict[tuple[str, str], set[str]]] = {}

    def key_of(self, partition: int, alert_id: str) -> Key | None:
        """The key under which an alert is, open or over; None if it is not the newest of its key."""
        return self._ids.get(partition, {}).get(alert_id)

    def open(self, partition: int) -> Collection[Key]:
        """Keys with an open alert, in no particular order."""
        return self._open.get(partition, ())

    def near(self, partition: int, device_id: str) -> Collection[Key]:
        """Keys with an open alert of a device, or of those behind it."""
        return self._near.get(partition, {}).get(device_id, ())

    def gateways(self, partition: int) -> Collection[str]:
        """Gateways that some open alert's device is behind."""
        return self._gateways.get(partition, ())

    def epoch(self, partition: int) -> int:
        """Another one each time that the partition came, or went."""
        return self._epochs[partition]

    def alive(self, partition: int, device_type: str, device_id: str) -> Collection[str]:
        """Ids of rules whose alert of the device is open, or whose condition is met, or that are blocked."""
        return self._alive.get(partition, {}).get((device_type, device_id), ())

    def partitions(self) -> Sequence[int]:
        """Partitions with an open alert."""
        return [partition for partition, keys in self._open.items() if keys]

    def update(self, partition: int, entries: Mapping[Key, Standing | None], at: int | None = None) -> None:
        """See `KeyValue.update`; a standing with nothing in it is deleted."""
        kept = {key: None if each == NOTHING else each for key, each in entries.items()}
        view = self.view(partition)
        for key, standing in kept.items():
            self._leave(partition, key, view.get(key))
            self._enter(partition, key, standing)
        super().update(partition, kept, at)

    def restored(self, partition: int) -> None:
        """See `headrace.engine.operator.Stored`."""
        super().restored(partition)
        self._clear(partition)
        for key, standing in self.view(partition).items():
            self._enter(partition, key, standing)

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        super().forget(partition)
        self._clear(partition)

    def _clear(self, partition: int) -> None:
        self._epochs[partition] += 1
        for index in (self._open, self._ids, self._near, self._gateways, self._alive):
            index.pop(partition, None)

    def _enter(self, partition: int, key: Key, standing: Standing | None) -> None:
        if standing is not None and (standing.open or standing.met or standing.blocked):
            self._alive.setdefault(partition, {}).setdefault(key[1:], set()).add(key[0])
        if standing is None or standing.alert is None:
            return
        self._ids.setdefault(partition, {})[standing.alert.alertId] = key
        if standing.open:
            self._open.setdefault(partition, set()).add(key)
            near = self._near.setdefault(partition, {})
            for place in places_of(standing.alert):
                near.setdefault(place, set()).add(key)
            if standing.alert.gatewayId is not None:
                self._gateways.setdefault(partition, Counter())[standing.alert.gatewayId] += 1

    def _leave(self, partition: int, key: Key, standing: Standing | None) -> None:
        alive = self._alive.get(partition, {})
        if key[1:] in alive:
            alive[key[1:]].discard(key[0])
            if not alive[key[1:]]:
                del alive[key[1:]]
        if standing is None or standing.alert is None:
            return
        del self._ids[partition][standing.alert.alertId]
        if standing.open:
            self._open[partition].discard(key)
            near = self._near[partition]
            for place in places_of(standing.alert):
                near[place].discard(key)
                if not near[place]:
                    del near[place]
            gateway = standing.alert.gatewayId
            if gateway is not None:
                self._gateways[partition][gateway] -= 1
                if not self._gateways[partition][gateway]:
                    del self._gateways[partition][gateway]


def places_of(alert: Alert) -> set[str]:
    """The device of an alert, and its gateway if it has one."""
    return {alert.deviceId} if alert.gatewayId is None else {alert.deviceId, alert.gatewayId}
