"""The CloudEvents of threshold alerts."""

import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from headrace.agents.episode import Change, Episode
from headrace.schemas.alert import RESOLVED, SOURCE, TRIGGERED
from headrace.schemas.rule import AlertRule

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.alert")


class Candidate(NamedTuple):
    """A reading that a rule has to look at; sorts in log order, then in the order of the rules."""

    row: int
    place: int
    rule: AlertRule
    time: int
    value: float
    device_id: str
    device_type: str
    message_id: str
    device_name: str | None = None


def alert_event(candidate: Candidate, change: Change, alert: Episode) -> bytes:
    """The CloudEvent for a change of `alert` that `candidate` caused; see `headrace.schemas.alert`."""
    rule = candidate.rule
    name = "\0".join((rule.rule_id, candidate.device_type, candidate.device_id, str(alert.triggered_at)))
    alert_id = str(uuid.uuid5(_NAMESPACE, name))
    data: dict[str, Any] = {
        "alertId": alert_id,
        "ruleId": rule.rule_id,
        "ruleName": rule.name,
        "deviceId": candidate.device_id,
        **({"deviceName": candidate.device_name} if candidate.device_name else {}),
        "deviceType": candidate.device_type,
        "severity": rule.severity,
        "status": change,
        "condition": str(rule.condition),
        "metric": rule.condition.metric,
        "actualValue": alert.evidence[-1][1],
        "threshold": rule.condition.threshold,
        "triggeredAt": alert.triggered_at,
    }
    if change == "resolved":
        data |= {"resolvedAt": candidate.time, "resolvedValue": candidate.value}
    data["evidence"] = [{"time": time, "value": value} for time, value in alert.evidence]
    moment = datetime.fromtimestamp(candidate.time / 1000, UTC).isoformat(timespec="milliseconds")
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{alert_id}/{change}",
            "source": SOURCE,
            "type": TRIGGERED if change == "triggered" else RESOLVED,
            "subject": candidate.device_id,
            "time": moment.replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }
    )
