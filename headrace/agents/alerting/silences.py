"""Silences as of a moment, found by what an alert has: of ten thousand it looks at the few that may match."""

from collections import defaultdict
from collections.abc import Iterable

from headrace.agents.alerting.suppression import matches
from headrace.schemas import topics
from headrace.schemas.alert import Alert
from headrace.schemas.silence import MOST_SILENCES, Silence
from headrace.tables.replicated import Replicated


def silence_table() -> Replicated[Silence]:
    """The topic of silences as a table. Those that are over count until somebody deletes them."""
    return Replicated(topics.SILENCES, Silence.model_validate_json, most=10 * MOST_SILENCES)


class Silences:
    """Those that are in force at some time, each under the field that chooses fewest alerts."""

    def __init__(self, silences: Iterable[Silence]) -> None:
        self._by: dict[tuple[str, str], list[Silence]] = defaultdict(list)
        for silence in sorted(silences, key=lambda each: each.id):
            name, values = _narrowest(silence)
            for value in values:
                self._by[name, value].append(silence)

    def of(self, alert: Alert, at_ms: int) -> Silence | None:
        """The first by id that is in force and matches, or None."""
        places = (
            ("device", alert.deviceId),
            ("gateway", alert.deviceId),
            ("gateway", alert.gatewayId or ""),
            ("rule", alert.ruleId),
            ("organisation", alert.organizationId or ""),
            ("type", alert.deviceType),
            ("severity", alert.severity),
        )
        found = [
            silence
            for place in places
            for silence in self._by.get(place, ())
            if silence.covers(at_ms) and matches(silence, alert)
        ]
        return min(found, key=lambda each: each.id, default=None)


def _narrowest(silence: Silence) -> tuple[str, tuple[str, ...]]:
    fields: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("device", silence.device_ids),
        ("gateway", silence.gateway_ids),
        ("rule", silence.rule_ids),
        ("organisation", silence.organization_ids),
        ("type", silence.device_types),
        ("severity", silence.severities),
    )
    return next((name, values) for name, values in fields if values)
