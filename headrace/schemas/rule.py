"""Alert rules: which devices, which condition, how grave, and what is to be done."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from headrace.schemas.condition import Condition, Name
from headrace.schemas.rule_model import NoSwitch, RuleModel, Seconds, SomeSeconds
from headrace.schemas.schedule import Schedule
from headrace.schemas.topics import MAX_DEVICE_ID

Severity = Literal["info", "warning", "critical"]
Channel = Literal["email", "push", "sms"]
DeviceId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_DEVICE_ID, pattern=r"^[^\x00]*$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s\x00-\x1f\x7f]+$", max_length=2000)]

#: Lines and tabs, and no other control characters.
Description = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]

#: `device_type` of a rule for devices of every type.
ALL_TYPES = "all"
#: Device ids that one rule may name.
MOST_DEVICES = 10_000


class Flapping(RuleModel):
    """From when on an alert is flapping: it says so, and is left open until its condition has been clear for a while.

    Args:
        triggers: times that it must have triggered, count.
        within: seconds of event time in which it has done so; for so long the condition must be clear, too.
    """

    triggers: Annotated[int, Field(ge=2, le=100), NoSwitch] = 5
    within: SomeSeconds = 3600.0


class Actions(RuleModel):
    """Whom to tell.

    Args:
        notifications: channels of the people who get the device's alerts.
        webhooks: addresses that get the event itself.
    """

    notifications: tuple[Channel, ...] = ()
    webhooks: tuple[Url, ...] = Field((), max_length=20)


class AlertRule(RuleModel):
    """When to alert about a device.

    Args:
        rule_id: unique among the rules; alerts carry it.
        name: for people; alerts carry it.
        description: for people: what it is for, what to do.
        organization_id: for devices of this organisation only, as the registry has it; None for all.
        device_type: name of a device type, or "all".
        device_ids: these devices only; empty for all of the type.
        condition: on a measure, an expression, silence, a connection or anomalies; its fields say which.
        severity: how grave its alerts are.
        status: inactive rules are read and not evaluated; of deleted ones only the name is left.
        cooldown_period: seconds of event time from one alert's trigger to the earliest next one, for the same device.
        schedule: outside of it nothing triggers; what is open may end.
        flapping: from when on its alerts are flapping; None for never, or `false`, as TOML has no null.
        explains: an open alert of this rule on a gateway explains those of the devices behind it, which then are
            suppressed.
        actions: whom to tell.
        created_by: user id.
        created_at, updated_at: ms since 1970 UTC; set when the rule is saved.
    """

    rule_id: Name
    name: Name
    description: Description = ""
    organization_id: Name | None = None
    device_type: Name = ALL_TYPES
    device_ids: tuple[DeviceId, ...] = Field((), max_length=MOST_DEVICES)
    condition: Condition
    severity: Severity = "warning"
    status: Literal["active", "inactive", "deleted"] = "active"
    cooldown_period: Seconds = 300.0
    schedule: Schedule = Schedule()
    flapping: Flapping | None = Flapping()
    explains: bool = False
    actions: Actions = Actions()
    created_by: Name | None = None
    created_at: Annotated[int, NoSwitch] | None = None
    updated_at: Annotated[int, NoSwitch] | None = None

    @field_validator("flapping", mode="before")
    @classmethod
    def _switched(cls, value: Any) -> Any:
        return (Flapping() if value else None) if isinstance(value, bool) else value

    def applies_to(self, device_type: str) -> bool:
        """Whether the rule is evaluated for devices of this type."""
        return self.status == "active" and self.device_type in (ALL_TYPES, device_type)
