"""Which columns of a data set are device, time and measures: a small TOML file, checked as a whole."""

import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from headrace.connectors.event_times import TIME_FORMATS, parse_zone
from headrace.engine.errors import ConfigError

#: Payload field that carries the event time, ms since 1970 UTC.
TIMESTAMP = "timestamp"
TimePart = Literal["year", "month", "day", "hour", "minute", "second"]


class DeviceSpec(BaseModel):
    """Where the device id comes from: exactly one of a column, a constant, or the file's name without its suffixes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = None
    constant: str | None = Field(default=None, min_length=1)
    file_stem: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(choice is not None for choice in (self.column, self.constant, self.file_stem)) != 1:
            raise ValueError("give exactly one of column, constant or file_stem = true")
        return self


class TimeSpec(BaseModel):
    """Where the event time comes from: one column in a format, or several columns that make a date and time.

    Args:
        column: the one column.
        columns: source column per part of the time; year, month and day at least. `second` may have a fraction.
        format: of `column`: "s", "ms", "us" or "ns" since 1970, "iso8601", a pattern of Python's `strptime`, or
            "auto" (numbers are ms since 1970, texts ISO 8601).
        zone: of times that name none: an IANA name or a fixed offset like "+08:00". An hour that the clocks skip or
            repeat is read with the offset that held before the change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = None
    columns: dict[TimePart, str] = Field(default_factory=dict)
    format: str = "auto"
    zone: str = "UTC"

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in TIME_FORMATS and "%" not in value:
            raise ValueError(f"{value!r} is none of {', '.join(TIME_FORMATS)}, nor a strptime pattern with a %")
        return value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        parse_zone(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.column is None) == (not self.columns):
            raise ValueError("give either column or columns")
        missing = [part for part in ("year", "month", "day") if self.columns and part not in self.columns]
        if missing:
            raise ValueError(f"columns lacks {', '.join(missing)}")
        return self


class Mapping(BaseModel):
    """How rows of a data set become messages.

    Args:
        name: of the data set.
        device_type: name of the device type that reads the payloads.
        match: columns by which a data set is recognised when no mapping is named.
        na: tokens that stand for "no value"; such a field is left out of the payload.
        separator: between the fields of a CSV line.
        device, time: where device id and event time come from.
        measures: payload field by source column; a value that is no number is sent as text, for ingest to refuse. Left
            out: every column that is not otherwise used, under its own name.
        text: payload field by source column, for values that stay text even if they look like numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    device_type: str = Field(min_length=1)
    match: tuple[str, ...] = ()
    na: tuple[str, ...] = ("",)
    separator: Literal[",", ";", "\t", "|"] = ","
    device: DeviceSpec
    time: TimeSpec
    measures: dict[str, str] | None = None
    text: dict[str, str] = Field(default_factory=dict, validate_default=True)

    @field_validator("text")
    @classmethod
    def _distinct_fields(cls, text: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        fields = [*(info.data.get("measures") or {}).values(), *text.values()]
        doubled = sorted({name for name in fields if fields.count(name) > 1 or name == TIMESTAMP})
        if doubled:
            raise ValueError(f"payload fields given twice, or reserved for the event time: {', '.join(doubled)}")
        return text

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that device id and time are made of."""
        time = (self.time.column,) if self.time.column else tuple(self.time.columns.values())
        return (*((self.device.column,) if self.device.column else ()), *(name for name in time if name))

    def fields(self, columns: Iterable[str]) -> dict[str, str]:
        """Payload field by source column, for a file with these columns."""
        if self.measures is not None:
            return self.measures | self.text
        used = {*self.key_columns, *self.text}
        return {name: name for name in columns if name and name not in used} | self.text

    def mistakes(self, columns: Sequence[str]) -> list[str]:
        """What keeps this mapping from reading a file with these columns."""
        needed = (*self.key_columns, *(self.measures or ()), *self.text)
        found = [f"has no column {name!r}" for name in dict.fromkeys(needed) if name not in columns]
        found += [
            f"has the column {name!r} twice" for name in dict.fromkeys(columns) if name and columns.count(name) > 1
        ]
        if TIMESTAMP in self.fields(columns).values():
            found.append(f"has a column {TIMESTAMP!r} that is not its time: name the measures in the mapping")
        return found


def load_mapping(name_or_path: str) -> Mapping:
    """The shipped mapping of this name, or the one in this TOML file.

    Raises:
        ConfigError: there is no such mapping, or it is wrong; with every mistake.
    """
    shipped = resources.files("headrace.connectors") / "mappings" / f"{name_or_path}.toml"
    if "/" not in name_or_path and shipped.is_file():
        return _parse(shipped.read_text("utf-8"), name_or_path)
    try:
        return _parse(Path(name_or_path).read_text("utf-8"), name_or_path)
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(mapping.name for mapping in shipped_mappings())
        raise ConfigError(
            f"mapping {name_or_path!r} is neither shipped ({names}) nor a readable file: {error}"
        ) from error


def shipped_mappings() -> list[Mapping]:
    """Every mapping that comes with headrace, by name."""
    folder = resources.files("headrace.connectors") / "mappings"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return [_parse(file.read_text("utf-8"), file.name) for file in files]


def choose_mapping(columns: Sequence[str]) -> Mapping:
    """The shipped mapping with the most `match` columns, all of which are among `columns`.

    Raises:
        ConfigError: none matches.
    """
    known = shipped_mappings()
    matching = [mapping for mapping in known if mapping.match and set(mapping.match) <= set(columns)]
    if not matching:
        raise ConfigError(
            f"no shipped mapping ({', '.join(mapping.name for mapping in known)}) fits the columns "
            f"{', '.join(columns)}: write a mapping file and name it with --mapping FILE"
        )
    return max(matching, key=lambda mapping: len(mapping.match))


def _parse(text: str, origin: str) -> Mapping:
    try:
        return Mapping.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"mapping {origin}: not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(
            *(
                f"mapping {origin}: {'.'.join(map(str, mistake['loc'])) or 'the mapping'}: {mistake['msg']}"
                for mistake in error.errors()
            )
        ) from error
