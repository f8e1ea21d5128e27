"""What `alerts.silences.v1` carries, compacted: key silence id, value a `Silence` as JSON.

Of alerts that a silence matches nobody is told while it lasts; they open, end and are stored as always.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from headrace.schemas.rule import Severity

#: What no database and no terminal takes is not in texts.
_LINE = r"^[^\x00-\x1f\x7f]*$"
_LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
#: Silences that may be in force or planned at once.
MOST_SILENCES = 10_000


class Silence(BaseModel):
    """Which alerts, from when until when.

    An alert matches if it fits every field that is given, one of its values each.

    Args:
        id: unique.
        rule_ids: alerts of these rules.
        device_ids, device_types: alerts of these devices, of devices of these types.
        gateway_ids: alerts of the devices behind these gateways, and of the gateways.
        organization_ids: alerts of these organisations' devices.
        severities: alerts of these severities.
        starts_at: ms since 1970 UTC, by the append time of what comes.
        ends_at: likewise; this moment is not in it any more.
        comment: why, for those who look.
        created_by: user id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    id: Id
    rule_ids: tuple[Id, ...] = ()
    device_ids: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = ()
    device_types: tuple[Id, ...] = ()
    gateway_ids: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = ()
    organization_ids: tuple[Id, ...] = ()
    severities: tuple[Severity, ...] = ()
    starts_at: int = Field(ge=0)
    ends_at: int = Field(ge=0)
    comment: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=_LINES)]
    created_by: Id

    @model_validator(mode="after")
    def _fits(self) -> "Silence":
        if self.ends_at <= self.starts_at:
            raise ValueError("a silence ends after it starts")
        chosen = (
            self.rule_ids, self.device_ids, self.device_types, self.gateway_ids, self.organization_ids,
            self.severities,
        )  # fmt: skip
        if not any(chosen):
            raise ValueError("say which alerts: by rule, device, device type, gateway, organisation or severity")
        return self

    def covers(self, at_ms: int) -> bool:
        """Whether it is in force at this append time."""
        return self.starts_at <= at_ms < self.ends_at
