"""What alerts have around them: the device registry, silences, and alerts that explain others."""

import msgspec
import orjson

from headrace.agents.alerting import suppression
from headrace.agents.alerting.known_devices import STRANGER, KnownDevice, device_table
from headrace.agents.alerting.silences import Silences, silence_table
from headrace.agents.alerting.suppression import Cause
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.alert import Alert, Suppression
from headrace.tables.replicated import Replicated

#: Gateways behind gateways that are looked at.
MOST_HOPS = 8


class Around:
    """The replicated tables that alerts look things up in, as of append times."""

    def __init__(self) -> None:
        self.devices = device_table()
        self.silences = silence_table()
        self.causes: Replicated[Cause] = Replicated(topics.ALERT_CAUSES, msgspec.json.Decoder(Cause).decode)
        self.replicas: tuple[Replica, ...] = (self.devices, self.silences, self.causes)
        #: Silences by the time that the table is to be asked with, at this revision of it.
        self._known: dict[int, Silences] = {}
        self._known_at = -1
        #: Keys of causes by the gateway that they are about, at this revision of them.
        self._keys: dict[str, set[str]] = {}
        self._keys_at = -1

    def device(self, device_id: str, at_ms: int) -> KnownDevice:
        """See `headrace.agents.alerting.work.Surroundings`."""
        return self.devices.get(device_id, at_ms) or STRANGER

    def registry(self, at_ms: int) -> tuple[int, int]:
        """See `headrace.agents.alerting.work.Surroundings`."""
        (span,) = self.devices.spans([at_ms])
        return self.devices.revision, span.at_ms

    def gateways(self, device_id: str, gateway_id: str | None, at_ms: int) -> list[str]:
        """The gateway of a device, that of the gateway, and so on; the device itself where they go round in a circle.

        At most `MOST_HOPS`.
        """
        found: list[str] = []
        while gateway_id is not None and gateway_id not in found and len(found) < MOST_HOPS:
            found.append(gateway_id)
            if gateway_id == device_id:
                break
            gateway_id = self.device(gateway_id, at_ms).gateway
        return found

    def suppression(self, alert: Alert, snoozed_until: int | None, at_ms: int) -> tuple[Suppression | None, str | None]:
        """See `headrace.agents.alerting.work.Surroundings`: the first of snooze, silences, maintenance, inhibition."""
        gateways = self.gateways(alert.deviceId, alert.gatewayId, at_ms)
        cause = self._cause(alert, gateways, at_ms)
        return self._suppression(alert, snoozed_until, gateways, cause, at_ms), cause.alertId if cause else None

    def _suppression(
        self, alert: Alert, snoozed_until: int | None, gateways: list[str], cause: Cause | None, at_ms: int
    ) -> Suppression | None:
        if snoozed_until is not None and at_ms < snoozed_until:
            return suppression.snoozed(alert, snoozed_until)
        silence = self._silences_at(at_ms).of(alert, at_ms)
        if silence is not None:
            return suppression.silenced(silence)
        for device_id in (alert.deviceId, *gateways):
            if self.device(device_id, at_ms).status == "maintenance":
                return suppression.maintained(alert, device_id)
        return None if cause is None else suppression.explained(cause)

    def _cause(self, alert: Alert, gateways: list[str], at_ms: int) -> Cause | None:
        """What explains an alert: the nearest gateway's; nothing where gateways go round in a circle through it."""
        if not gateways or alert.deviceId in gateways:
            return None
        keys = self._cause_keys()
        for gateway in gateways:
            for key in sorted(keys.get(gateway, ())):
                cause = self.causes.get(key, at_ms)
                if cause is not None and cause.deviceId == gateway:
                    return cause
        return None

    def _silences_at(self, at_ms: int) -> Silences:
        if self._known_at != self.silences.revision:
            self._known.clear()
            self._known_at = self.silences.revision
        (span,) = self.silences.spans([at_ms])
        if span.at_ms not in self._known:
            self._known[span.at_ms] = Silences(silence for _, silence in self.silences.items(at_ms))
        return self._known[span.at_ms]

    def _cause_keys(self) -> dict[str, set[str]]:
        """Keys of causes by gateway; those that are over may be among them."""
        if self._keys_at != self.causes.revision:
            changed = self.causes.changed_since(self._keys_at)
            if changed is None:
                self._keys.clear()
                changed = self.causes.keys()
            for key in changed:
                gateway = gateway_of(key)
                if gateway is not None:
                    self._keys.setdefault(gateway, set()).add(key)
            self._keys_at = self.causes.revision
        return self._keys


def gateway_of(key: str) -> str | None:
    """The gateway that a key of the topic of causes is about; None if it is no such key."""
    try:
        gateway, _ = orjson.loads(key)
    except (ValueError, TypeError):
        return None
    return gateway if isinstance(gateway, str) else None
