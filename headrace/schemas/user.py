"""Users: what `registry.users` carries, compacted: key user id, value a `User` as JSON.

JSON has the camelCase names of the public schema; what has its default is left out.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from headrace.schemas.recurrence import FIRST_YEAR, LAST_YEAR, check_rule, check_start
from headrace.schemas.rule import Channel, DeviceId, Severity
from headrace.schemas.rule_model import NoSwitch, RuleModel
from headrace.schemas.window import known_zone

#: What no database and no terminal takes is not in texts.
_LINE = r"^[^\x00-\x1f\x7f]*$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
#: One `@` with something before it, and a host with a dot behind it: whether it takes mail only mail can tell.
Email = Annotated[
    str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f<>,;]{1,64}@[^@\s<>,;]+\.[^@\s.<>,;]+$")
]
#: E.164: a plus, the country, the number, and nothing else.
Phone = Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{6,14}$")]
Zone = Annotated[str, AfterValidator(known_zone)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Role = Literal["super_admin", "org_admin", "operator", "viewer"]
Platform = Literal["android", "ios", "web", "ntfy"]

#: In `subscribed_devices`: every device of the user's organisation.
EVERY_DEVICE = "*"
#: Subscriptions, shifts, tokens that one user may have, and devices that one subscription may name.
MOST_EACH = 100
MOST_DEVICES = 10_000


def _token(value: Any) -> Any:
    return {"token": value} if isinstance(value, str) else value


class DeviceToken(RuleModel):
    """Where pushes for a user go.

    Args:
        token: of Firebase; with platform "ntfy" the topic, or its whole address.
        platform: of the phone.
    """

    token: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
    platform: Platform = "android"


class ChannelSwitches(RuleModel):
    """By which channels somebody is to be told at all.

    Args:
        email, push, sms: whether.
    """

    email: bool = True
    push: bool = True
    sms: bool = True


class QuietHours(RuleModel):
    """When somebody is not to be disturbed: every day from `start` until before `end`, by the wall clock there.

    What is held is told at the end, in one digest. An hour that the clocks skip or double is what the wall clock says.

    Args:
        enabled: whether they hold.
        start, end: `HH:MM`; past midnight if `end` is not later than `start`.
        timezone: IANA name; None for the user's.
        override: severities that come through all the same.
    """

    enabled: bool = True
    start: Clock = "22:00"
    end: Clock = "08:00"
    timezone: Zone | None = None
    override: tuple[Severity, ...] = ("critical",)

    @model_validator(mode="after")
    def _some_hours(self) -> "QuietHours":
        if self.start == self.end:
            raise ValueError("start and end are the same: switch quiet hours off with enabled, or all channels")
        return self


class Subscription(RuleModel):
    """Alerts that somebody wants to hear of: those that fit every field that is given, one of its values each.

    Args:
        device_ids, device_types, gateway_ids, rule_ids: of the alert; a gateway's are its own and those behind it.
        tags: of the device, as the registry has them.
        severities: of the alert.
        channels: narrows what the severity gives; None for all of that.
    """

    device_ids: tuple[DeviceId, ...] = Field((), max_length=MOST_DEVICES)
    device_types: tuple[Id, ...] = Field((), max_length=MOST_EACH)
    gateway_ids: tuple[DeviceId, ...] = Field((), max_length=MOST_DEVICES)
    rule_ids: tuple[Id, ...] = Field((), max_length=MOST_EACH)
    tags: tuple[Id, ...] = Field((), max_length=MOST_EACH)
    severities: tuple[Severity, ...] = ()
    channels: tuple[Channel, ...] | None = None


class Preferences(RuleModel):
    """How somebody wants to be told, and of what.

    Args:
        notifications: channels switched on.
        severities: per severity, the channels wanted of those that the installation's matrix gives; a severity that is
            not here has all of them.
        quiet_hours: when not; None for never.
        subscribed_devices: device ids; `*` for every device of the organisation.
        subscriptions: alerts chosen by more than the device. Who has neither these nor devices is told of nothing but
            what an escalation brings.
        theme, dashboard_layout: of the dashboard; kept, not looked at.
    """

    notifications: ChannelSwitches = ChannelSwitches()
    severities: dict[Severity, tuple[Channel, ...]] = Field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    subscribed_devices: tuple[DeviceId, ...] = Field((), max_length=MOST_DEVICES)
    subscriptions: tuple[Subscription, ...] = Field((), max_length=MOST_EACH)
    theme: Id | None = None
    dashboard_layout: dict[str, Any] = Field(default_factory=dict)


class Shift(RuleModel):
    """When somebody is on call for a team, as a VEVENT of iCalendar says it.

    Args:
        team: named by escalation steps.
        start: first moment, wall clock there (DTSTART), without offset; the rule must have it.
        hours: how long each shift lasts on the wall clock, to the minute: who hands over at eight does so on every day.
        rrule: how it recurs, by days, weeks, months or years (RRULE, RFC 5545); None for once.
        timezone: IANA name; None for the user's.
    """

    team: Id
    start: datetime
    hours: Annotated[float, Field(ge=1 / 60, le=366 * 24), NoSwitch]
    rrule: Annotated[str, AfterValidator(check_rule)] | None = None
    timezone: Zone | None = None

    @model_validator(mode="after")
    def _wall_clock(self) -> "Shift":
        if self.start.tzinfo is not None:
            raise ValueError("start: must be a wall-clock time without offset; the zone is in timezone")
        if self.start.microsecond or not FIRST_YEAR <= self.start.year <= LAST_YEAR:
            raise ValueError(f"start: must be a whole second in the years {FIRST_YEAR} to {LAST_YEAR}")
        if self.rrule is not None:
            check_start(self.rrule, self.start)
        return self


class User(RuleModel):
    """One person who may be told of alerts.

    Args:
        user_id: unique.
        name: how people call them.
        email, phone: where to reach them; a channel without is passed over, and the decision says so.
        device_tokens: where pushes go; a text is a token of Android.
        organization_id: whose devices they see; None: those of no organisation, all for a super_admin.
        role: what they may do.
        active: whether they are told of anything.
        language: of what they are sent, BCP 47.
        timezone: of the times in it, IANA name.
        units: in what numbers are shown.
        preferences, on_call: see there.
        created_at, updated_at: ms since 1970 UTC.
    """

    user_id: Id
    name: Id | None = None
    email: Email | None = None
    phone: Phone | None = None
    device_tokens: tuple[Annotated[DeviceToken, BeforeValidator(_token)], ...] = Field((), max_length=MOST_EACH)
    organization_id: Id | None = None
    role: Role = "viewer"
    active: bool = True
    language: Language = "en"
    timezone: Zone = "UTC"
    units: Literal["metric", "imperial"] = "metric"
    preferences: Preferences = Preferences()
    on_call: tuple[Shift, ...] = Field((), max_length=MOST_EACH)
    created_at: int | None = None
    updated_at: int | None = None


def encode_user(user: User) -> bytes:
    """A user as the topic has it."""
    return user.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def decode_user(value: bytes) -> User:
    """A user from the topic.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return User.model_validate_json(value)
