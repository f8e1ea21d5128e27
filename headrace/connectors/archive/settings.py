"""Where the archive is, and how long rows stay in the database before they go there."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from headrace.connectors.aws_access import AwsAccess

#: No row leaves the database before the day that it belongs to has been over for so many days.
LEAST_DAYS = 2
MOST_DAYS = 36_500

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_URL = re.compile(r"file:///.*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?")

#: Days that rows are kept in the database; "never" deletes none.
Days = Annotated[int, Strict(), Field(ge=LEAST_DAYS, le=MOST_DAYS)] | Literal["never"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ArchiveSettings(AwsAccess):
    """The object store, and when it is written to. What is left out, AWS's own variables say."""

    enabled: bool | None = Field(
        None, description="move old rows every day in `headrace sink`; if left out, where `url` is set"
    )
    url: str | None = Field(
        None, description="`file:///path` or `s3://bucket/prefix`; `archive` in the data folder if left out"
    )
    at: str = Field("02:00", description="time of day, UTC")
    part_rows: int = Field(
        100_000, ge=1, le=1_000_000, description="rows per file, at most; so many are deleted in one transaction"
    )
    request_timeout: float = Field(60.0, gt=0, le=3600, description="seconds until a request to S3 counts as failed")

    @field_validator("url")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and not _URL.fullmatch(value):
            raise ValueError("must be file:///path or s3://bucket/prefix")
        return value

    @field_validator("at")
    @classmethod
    def _time(cls, value: str) -> str:
        if not _TIME.fullmatch(value):
            raise ValueError("must be a time of day such as 02:00")
        return value

    @property
    def daily(self) -> bool:
        """Whether it runs by itself: deleting is never a default."""
        return self.url is not None if self.enabled is None else self.enabled

    @property
    def second_of_day(self) -> int:
        """When it runs, seconds after midnight UTC."""
        hours, minutes = self.at.split(":")
        return int(hours) * 3600 + int(minutes) * 60


class RetentionPolicy(_Section):
    """How long readings of a device type, of an organisation, or of both are kept."""

    device_type: str | None = Field(None, description="its readings; every type if left out")
    organisation: str | None = Field(None, description="readings of its devices; everybody's if left out")
    days: Days = Field(description="days in the database, or `never` to delete none")

    @model_validator(mode="after")
    def _narrow(self) -> Self:
        if self.device_type is None and self.organisation is None:
            raise ValueError("a policy needs a device_type or an organisation; for everything there is retention.days")
        return self


class RetentionSettings(_Section):
    """How long rows stay in the database. The archive keeps them for ever."""

    days: Days = Field(90, description="of readings that no policy names, days, or `never`")
    policies: tuple[RetentionPolicy, ...] = Field(
        (), description="device type and organisation beat organisation, which beats device type"
    )
    alerts: Days = Field(90, description="of resolved alerts, by when they were resolved; open ones stay")
    alert_events: Days = Field(90, description="of what happened to alerts, and of refused commands")
    anomalies: Days = Field(90, description="of anomalies")
    conflicts: Days = Field(90, description="of conflicts")
    dead_letters: Days = Field(90, description="of dead letters in the database")
    notifications: Days = Field(90, description="of notifications")
    rollups: Days = Field("never", description="of closed windows")
    shrink: float = Field(
        10.0,
        ge=1,
        description="a run that would delete more than so many times the most of the last 7 runs asks for `--yes`",
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        named = [(policy.device_type, policy.organisation) for policy in self.policies]
        twice = sorted({str(each) for each in named if named.count(each) > 1})
        if twice:
            raise ValueError(f"more than one policy for device_type, organisation {', '.join(twice)}")
        return self

    def days_of(self, device_type: str, organisation: str | None) -> int | None:
        """Days that readings are kept; None for ever. The narrowest policy decides.

        >>> policies = [{"organisation": "acme", "days": "never"}, {"device_type": "tilt", "days": 7}]
        >>> kept = RetentionSettings.model_validate({"policies": policies})
        >>> kept.days_of("tilt", "acme"), kept.days_of("tilt", None), kept.days_of("air", None)
        (None, 7, 90)
        """
        return self.policy_of(device_type, organisation)[1]

    def policy_of(self, device_type: str, organisation: str | None) -> tuple[str, int | None]:
        """The policy that decides, as its reader knows it, and its days; None for ever."""
        for policy in sorted(self.policies, key=_width):
            if policy.device_type in (None, device_type) and policy.organisation in (None, organisation):
                names = {"device_type": policy.device_type, "organisation": policy.organisation}
                shown = ", ".join(f"{key} {value}" for key, value in names.items() if value is not None)
                return shown, _number(policy.days)
        return "default", _number(self.days)

    def shortest(self, device_type: str) -> int | None:
        """Days after which some readings of the type may go; None if none ever may."""
        days = [_number(self.days)]
        days += [_number(policy.days) for policy in self.policies if policy.device_type in (None, device_type)]
        return min((each for each in days if each is not None), default=None)

    def too_short(self, **horizons: float) -> list[str]:
        """Mistakes where readings could leave while something still works on them.

        Args:
            horizons: by setting, with `__` for the dot, seconds of event time for which it looks back.

        >>> RetentionSettings(days=7).too_short(timescale__refresh_window=30 * 86_400.0, rollup__grace=300.0)
        ['retention: 7 days must be more than timescale.refresh_window (2592000 s)']
        """
        kept = (self.days, *(policy.days for policy in self.policies))
        days = min((each for each in kept if each != "never"), default=None)
        return [
            f"retention: {days} days must be more than {name.replace('__', '.')} ({seconds:.12g} s)"
            for name, seconds in horizons.items()
            if days is not None and days * 86_400 <= seconds
        ]

    def documents(self) -> dict[str, int | None]:
        """Days by table that holds documents; None for ever."""
        names = ("alerts", "alert_events", "anomalies", "conflicts", "dead_letters", "notifications", "rollups")
        return {name: _number(getattr(self, name)) for name in names}


def _number(days: Days) -> int | None:
    return None if days == "never" else days


def _width(policy: RetentionPolicy) -> int:
    return 2 * (policy.organisation is None) + (policy.device_type is None)
