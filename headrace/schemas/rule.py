"""Alert rules: which devices, which condition on one metric, for how long, how grave."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Severity = Literal["info", "warning", "critical"]
Operator = Literal[">", "<", ">=", "<=", "=="]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]

#: `device_type` of a rule for devices of every type.
ALL_TYPES = "all"


class _Model(BaseModel):
    # JSON has the camelCase names of the public schema, TOML and Python the others; both are read.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


class Condition(_Model):
    """`metric` `operator` `threshold`, on every reading for `duration`.

    Args:
        metric: name of a measure.
        threshold: in the metric's unit.
        duration: seconds of event time from the first reading where it holds; 0 for at once.
    """

    metric: Name
    operator: Operator
    threshold: float
    duration: float = Field(0.0, ge=0)

    def __str__(self) -> str:
        condition = f"{self.metric} {self.operator} {self.threshold:g}"
        return f"{condition} for {self.duration:g} s" if self.duration else condition


class AlertRule(_Model):
    """When to alert about a device.

    Args:
        rule_id: unique among the rules; alerts carry it.
        device_type: name of a device type, or "all".
        device_ids: these devices only; empty for all of the type.
        condition: see `Condition`.
        status: inactive rules are read and not evaluated.
        cooldown_period: seconds of event time from one alert's trigger to the earliest next one, for the same device.
    """

    rule_id: Name
    name: Name
    description: str = ""
    device_type: Name = ALL_TYPES
    device_ids: tuple[Name, ...] = ()
    condition: Condition
    severity: Severity = "warning"
    status: Literal["active", "inactive"] = "active"
    cooldown_period: float = Field(300.0, ge=0)

    def applies_to(self, device_type: str) -> bool:
        """Whether the rule is evaluated for devices of this type."""
        return self.status == "active" and self.device_type in (ALL_TYPES, device_type)
