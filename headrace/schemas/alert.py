"""What `alerts.v1` carries: an alert's changes as CloudEvents 1.0, in JSON (structured mode).

Record key: the device id; the header `message-id` names the reading that caused the change.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from headrace.schemas.rule import Severity

TRIGGERED = "io.headrace.alert.triggered"
RESOLVED = "io.headrace.alert.resolved"
SOURCE = "/headrace/alert"


class Sample(BaseModel):
    """One reading of the rule's metric; `time` in ms since 1970 UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: int
    value: float


class AlertData(BaseModel):
    """One alert as it is now.

    Args:
        alertId: the same for all events of one alert; made of rule, device and trigger time, so a repeat has it too.
        deviceId, deviceType: whose reading.
        deviceName: its name in the device registry, if the reading has it.
        condition: the rule's condition, for a person.
        actualValue, threshold: of the rule's metric at the trigger, and what it was compared with.
        triggeredAt, resolvedAt: event time, ms since 1970 UTC.
        evidence: readings that made the alert, from the first where the condition held to the trigger; of many, the
            first and the newest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alertId: str
    ruleId: str
    ruleName: str
    deviceId: str
    deviceName: str | None = None
    deviceType: str
    severity: Severity
    status: Literal["triggered", "resolved"]
    condition: str
    metric: str
    actualValue: float
    threshold: float
    triggeredAt: int
    resolvedAt: int | None = None
    resolvedValue: float | None = None
    evidence: tuple[Sample, ...]


class AlertEvent(BaseModel):
    """A CloudEvent about one alert; `time` is the event time of the reading that caused it, RFC 3339."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = SOURCE
    type: Literal["io.headrace.alert.triggered", "io.headrace.alert.resolved"]
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: AlertData
