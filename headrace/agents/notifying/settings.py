"""Configuration of notifications: who is told by what, how often, and who is next when nobody answers."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from headrace.agents.notifying.caps import Cap, parse_cap
from headrace.schemas.rule import Channel, Severity, Url
from headrace.schemas.text import near
from headrace.schemas.user import Id
from headrace.schemas.window import parse_duration

#: What happens to alerts that people can be told of.
Told = Literal["triggered", "acknowledged", "resolved"]
_SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_CHANNELS: tuple[Channel, ...] = get_args(Channel)

#: Bounds of a step's wait, as GoAlert has them: seconds, and 9,000 minutes.
SHORTEST_STEP_MS, LONGEST_STEP_MS = 1_000, 9_000 * 60_000
MOST_STEPS = 50
MOST_REPEATS = 100
MOST_POLICIES = 200

_FLOOR: dict[Severity, tuple[Channel, ...]] = {"critical": ("email",)}
_MATRIX: dict[Severity, tuple[Channel, ...]] = {
    "info": ("email",),
    "warning": ("email", "push"),
    "critical": ("email", "push", "sms"),
}
#: SMS as GoAlert has them.
_CAPS: dict[Channel, tuple[str, ...]] = {
    "email": ("1/1m",),
    "push": ("10/1m",),
    "sms": ("5/15m", "11/1h", "21/3h"),
}


def _one_of(known: Collection[str]) -> BeforeValidator:
    """Names are those that there are; others are told with the one that was probably meant."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in known:
            return value
        raise ValueError(f"{value!r} is none of {', '.join(known)}{near(str(value), known)}")

    return BeforeValidator(check)


def _some(value: Any) -> Any:
    if not value:
        raise ValueError("must have at least one")
    return value


#: Pydantic's own minimum counts what is right, and so tells of one mistake twice.
_SOME = AfterValidator(_some)
_Severity = Annotated[Severity, _one_of(_SEVERITIES)]
_Channel = Annotated[Channel, _one_of(_CHANNELS)]
_Told = Annotated[Told, _one_of(get_args(Told))]


def _names_known(value: object, known: Collection[str]) -> object:
    """A table with these names only."""
    if isinstance(value, Mapping):
        wrong = [f"{name}: there is none{near(str(name), known)}" for name in value if name not in known]
        if wrong:
            raise ValueError(f"{'; '.join(wrong)}; there are {', '.join(known)}")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Step(_Section):
    """One step of an escalation; exactly one of team, users and subscribers says whom it tells.

    Args:
        after: how long after the step before it, of the first after the trigger: `1s` to `9000m`.
        team: whoever is on call for it then.
        users: user ids.
        subscribers: everybody who is subscribed to the alert, once more.
        channels: instead of what `[notify] matrix` gives the severity.
    """

    after: str
    team: Id | None = None
    users: tuple[Id, ...] = Field((), max_length=100)
    subscribers: bool = False
    channels: Annotated[tuple[_Channel, ...], _SOME] | None = None

    @field_validator("after", mode="before")
    @classmethod
    def _bounded(cls, value: object) -> str:
        text = f"{value}s" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        if not SHORTEST_STEP_MS <= parse_duration(text) <= LONGEST_STEP_MS:
            raise ValueError(f"{text!r} must be 1s to 9000m")
        return text

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if [self.team is not None, bool(self.users), self.subscribers].count(True) != 1:
            raise ValueError("say whom the step tells: give one of team, users, and subscribers = true")
        return self

    @property
    def after_ms(self) -> int:
        """Ms."""
        return parse_duration(self.after)

    @property
    def whom(self) -> str:
        """Whom it tells, for people."""
        if self.team is not None:
            return f"team {self.team}"
        return "subscribers" if self.subscribers else f"user{'s'[: len(self.users) > 1]} {', '.join(self.users)}"


class Escalation(_Section):
    """Who is told next as long as nobody acknowledges an alert.

    Args:
        name: unique.
        severities: of these alerts.
        organization_ids: of alerts of these organisations' devices; empty for all.
        steps: in their order.
        repeat: times that all steps come again after the last, count.
    """

    name: Id
    severities: Annotated[tuple[_Severity, ...], _SOME] = ("critical",)
    organization_ids: tuple[Id, ...] = ()
    steps: Annotated[tuple[Step, ...], _SOME] = Field(max_length=MOST_STEPS)
    repeat: int = Field(0, ge=0, le=MOST_REPEATS, strict=True)


class NotifySettings(_Section):
    """Who is told of alerts, by what, how often."""

    matrix: dict[Severity, tuple[_Channel, ...]] = Field(
        _MATRIX, description="channels per severity; people and rules may only narrow it; what is left out is default"
    )
    floor: dict[Severity, tuple[_Channel, ...]] = Field(
        _FLOOR, description="channels per severity that people and rules cannot switch off"
    )
    tell: tuple[_Told, ...] = Field(
        ("triggered", "resolved"),
        description="of what people are told: `triggered`, `acknowledged`, `resolved`; of the last two never by sms",
    )
    caps: dict[Channel, tuple[str, ...]] = Field(
        _CAPS,
        description="how many messages a contact gets at most, COUNT/DURATION, `[]` for any number; more are held and "
        "come as one digest; what is left out is default",
    )
    escalations: tuple[Escalation, ...] = Field(
        (),
        max_length=MOST_POLICIES,
        description="who is next when nobody acknowledges; the first that fits an alert applies",
    )
    repeat_acknowledged: str | None = Field(
        None, description="tell again of what was acknowledged and is not over, each time so much later, as in `24h`"
    )
    dashboard_url: Url | None = Field(None, description="where links in messages lead; without it there are none")

    @field_validator("matrix", "floor", mode="before")
    @classmethod
    def _severities_known(cls, value: object) -> object:
        return _names_known(value, _SEVERITIES)

    @field_validator("caps", mode="before")
    @classmethod
    def _caps_known(cls, value: object) -> object:
        if not isinstance(_names_known(value, _CHANNELS), Mapping):
            return value
        wrong = []
        for texts in value.values():  # type: ignore[attr-defined]
            for text in texts if isinstance(texts, list | tuple) else ():
                try:
                    parse_cap(str(text))
                except ValueError as error:
                    wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        return value

    @field_validator("matrix")
    @classmethod
    def _matrix_whole(cls, value: dict[Severity, tuple[Channel, ...]]) -> dict[Severity, tuple[Channel, ...]]:
        return {**_MATRIX, **value}

    @field_validator("caps")
    @classmethod
    def _caps_whole(cls, value: dict[Channel, tuple[str, ...]]) -> dict[Channel, tuple[str, ...]]:
        return {**_CAPS, **value}

    @field_validator("repeat_acknowledged")
    @classmethod
    def _reminder_fits(cls, value: str | None) -> str | None:
        if value is not None and parse_duration(value) < 60_000:
            raise ValueError(f"{value!r} must be at least 1m")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong = [
            f"floor.{severity}: {channel} is not in matrix.{severity}, so nobody has it to switch off"
            for severity, channels in self.floor.items()
            for channel in channels
            if self.floor != _FLOOR and channel not in self.matrix[severity]
        ]
        names = [each.name for each in self.escalations]
        wrong += [
            f"escalations: there is more than one {name!r}" for name in sorted(set(names)) if names.count(name) > 1
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def limits(self, channel: Channel) -> tuple[Cap, ...]:
        """The caps of a channel."""
        return tuple(map(parse_cap, self.caps[channel]))

    @property
    def reminder_ms(self) -> int | None:
        """`repeat_acknowledged` in ms; None for never."""
        return None if self.repeat_acknowledged is None else parse_duration(self.repeat_acknowledged)
