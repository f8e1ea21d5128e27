"""What alerts have around them: the device registry, silences, and alerts that explain others."""

from collections import defaultdict
from typing import Any

import orjson

from headrace.agents.alerting import suppression
from headrace.agents.alerting.known_devices import STRANGER, KnownDevice, device_table
from headrace.engine.replicas import Replica
from headrace.schemas.alert import Alert, Suppression
from headrace.schemas.silence import Silence


class Around:
    """The replicated tables that alerts look things up in, as of append times."""

    def __init__(self) -> None:
        self._devices = device_table()
        self._silences = suppression.silence_table()
        self._causes = suppression.cause_table()
        self.replicas: tuple[Replica, ...] = (self._devices, self._silences, self._causes)
        self._known: dict[int, list[Silence]] = {}
        self._by_gateway: dict[int, dict[str, list[dict[str, Any]]]] = {}
        self._revisions = (-1, -1)

    @property
    def revision(self) -> tuple[int, int, int]:
        """Another one after every change of what suppresses alerts."""
        return self._devices.revision, self._silences.revision, self._causes.revision

    def device(self, device_id: str, at_ms: int) -> KnownDevice:
        """See `headrace.agents.alerting.work.Surroundings`."""
        return self._devices.get(device_id, at_ms) or STRANGER

    def suppression(self, alert: Alert, snoozed_until: int | None, at_ms: int) -> Suppression | None:
        """See `headrace.agents.alerting.work.Surroundings`: the first of snooze, silences, maintenance, inhibition."""
        if snoozed_until is not None and at_ms < snoozed_until:
            return suppression.snoozed(alert, snoozed_until)
        for silence in self._silences_at(at_ms):
            if silence.covers(at_ms) and suppression.matches(silence, alert):
                return suppression.silenced(silence)
        gateway = None if alert.gatewayId is None else self.device(alert.gatewayId, at_ms)
        found = suppression.in_maintenance(alert, self.device(alert.deviceId, at_ms), gateway)
        if found is not None or alert.gatewayId is None:
            return found
        causes = self._causes_at(at_ms).get(alert.gatewayId, ())
        return next((suppression.explained(alert, each) for each in causes if each["alertId"] != alert.alertId), None)

    def _silences_at(self, at_ms: int) -> list[Silence]:
        self._refresh()
        (span,) = self._silences.spans([at_ms])
        if span.at_ms not in self._known:
            self._known[span.at_ms] = [silence for _, silence in sorted(self._silences.items(at_ms))]
        return self._known[span.at_ms]

    def _causes_at(self, at_ms: int) -> dict[str, list[dict[str, Any]]]:
        self._refresh()
        (span,) = self._causes.spans([at_ms])
        if span.at_ms not in self._by_gateway:
            by_gateway: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for key, cause in sorted(self._causes.items(at_ms)):
                by_gateway[orjson.loads(key)[0]].append(cause)
            self._by_gateway[span.at_ms] = by_gateway
        return self._by_gateway[span.at_ms]

    def _refresh(self) -> None:
        revisions = (self._silences.revision, self._causes.revision)
        if revisions != self._revisions:
            self._known.clear()
            self._by_gateway.clear()
            self._revisions = revisions
