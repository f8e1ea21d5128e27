"""Device types: what a kind of device sends, from one file that drives decoding, validation, units and tables."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from headrace.schemas.expression import Expression
from headrace.schemas.expression_units import unit_of
from headrace.schemas.simulate import Simulate
from headrace.schemas.type_mistakes import mistakes_of
from headrace.schemas.units import IDENTITY, Linear, Unit, conversion, convertible, own_unit, parse_unit
from headrace.schemas.window import known_zone

#: A field's name is also the name of a column; PostgreSQL keeps 63 bytes of it.
FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
TypeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
TimeFormat = Literal["epoch_ms", "epoch_s", "iso8601"]

#: A number with a unit, as in "243.04 degC".
Quantity = Annotated[str, StringConstraints(pattern=r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( \S+)?$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TimeSpec(Model):
    """Where a payload has its event time, and how it is written.

    Args:
        fields: names to look for; the first that is present counts.
        formats: epoch_ms and epoch_s are JSON numbers, iso8601 is a text with an offset from UTC.
        zone: IANA time zone of texts without an offset; without it they are refused.
        missing: `refuse` messages without a time, or give them the time when they were appended to the log (`append`):
            a message that is delivered twice is then two readings.
    """

    fields: tuple[str, ...] = Field(("timestamp",), min_length=1)
    formats: tuple[TimeFormat, ...] = Field(("epoch_ms", "iso8601"), min_length=1)
    zone: str | None = None
    missing: Literal["refuse", "append"] = "refuse"

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else known_zone(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if {"epoch_ms", "epoch_s"} <= set(self.formats):
            raise ValueError("formats may have epoch_ms or epoch_s, not both: a number could be either")
        if self.zone is not None and "iso8601" not in self.formats:
            raise ValueError("zone is about texts, and formats has no iso8601")
        return self


class MetricSpec(Model):
    """Where a payload of one metric names it, as in `{"type": "temperature", "value": 70.7, "unit": "F"}`.

    Args:
        name: payload field with the name of the metric: a field of the device type, or an alias of one.
        value: payload field with its value.
        unit: payload field with the unit of the value; without it, or absent, it is that of the field or alias.
        units: units by what devices write for them, as in `{ F = "degF" }`; common units need not be here.
    """

    name: str = "type"
    value: str = "value"
    unit: str | None = None
    units: Mapping[str, str] = {}


class FieldSpec(Model):
    """One field of a payload.

    Args:
        type: number and integer are kept in `unit`; boolean is kept as 1 or 0; text is kept in `extra`.
        unit: of the value as kept.
        kind: a counter only rises, and may start over at 0; a gauge does what it likes.
        min, max: least and greatest value that is accepted, in `unit`.
        required: refuse messages without it.
        nullable: null means that it is absent; where false, messages with null are refused.
        cadence: seconds between two values of a device, when it is regular; that of the device type if left out.
        aliases: other names it comes under, each with the unit used there.
        simulate: how the simulator makes it up; see `Simulate`. No message depends on it.
    """

    type: Literal["number", "integer", "boolean", "text"] = "number"
    unit: str = "1"
    kind: Literal["gauge", "counter"] = "gauge"
    description: str = ""
    min: float | None = None
    max: float | None = None
    required: bool = False
    nullable: bool = True
    cadence: float | None = Field(None, gt=0)
    aliases: Mapping[str, str] = {}
    simulate: Simulate | None = Field(None, exclude=True)


class Example(Model):
    """Tried when the file is loaded: with these inputs the expression gives `result`, to a thousandth."""

    given: Mapping[str, float]
    result: float


class DerivedSpec(Model):
    """A metric computed from others of the same reading. Absent where one of them is.

    Args:
        expression: see `Expression`. Its unit is inferred, and must be one that a factor turns into `unit`.
        unit: of the result.
        constants: names in the expression that stand for a number with a unit.
        examples: checked at load.
    """

    expression: str
    unit: str = "1"
    description: str = ""
    constants: Mapping[str, Quantity] = {}
    examples: tuple[Example, ...] = ()


class Source(NamedTuple):
    """A name in the payload that feeds a field, with the conversion into the field's unit."""

    name: str
    linear: Linear


class DeviceType(Model):
    """What one kind of device sends.

    Args:
        name: the name that messages are labelled with.
        version: raise it with every change.
        description: for people.
        cadence: seconds between two messages of a device, when it is regular.
        unknown_fields: `keep` what the type does not know in `extra`, or dead-letter the message (`quarantine`).
        own_units: names of units of this type alone, which convert to nothing.
        time: see `TimeSpec`.
        metric: for payloads that name their metric; see `MetricSpec`.
        identity: payload fields that, where present, must equal the id the message came under.
        fields: by the name they are kept under; see `FieldSpec`.
        derived: by name; see `DerivedSpec`.
        schema_hint: where an editor finds the format; written `$schema`, and ignored.
    """

    schema_hint: str = Field("", alias="$schema", exclude=True)
    name: TypeName
    version: int = Field(1, ge=1)
    description: str = ""
    cadence: float | None = Field(None, gt=0)
    unknown_fields: Literal["keep", "quarantine"] = "keep"
    own_units: tuple[str, ...] = ()
    time: TimeSpec = TimeSpec()
    metric: MetricSpec | None = None
    identity: tuple[str, ...] = ("device_id", "deviceId")
    fields: Mapping[FieldName, FieldSpec] = Field(min_length=1)
    derived: Mapping[FieldName, DerivedSpec] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes = list(mistakes_of(self))
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """Fields kept as numbers, in the order of the file."""
        return tuple(name for name, spec in self.fields.items() if spec.type != "text")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Fields kept as text, in `extra`."""
        return tuple(name for name, spec in self.fields.items() if spec.type == "text")

    @cached_property
    def counters(self) -> frozenset[str]:
        """Measures that only rise, and may start over at 0."""
        return frozenset(name for name, spec in self.fields.items() if spec.kind == "counter")

    @cached_property
    def cadences(self) -> dict[str, float]:
        """Seconds between two values of a device, per field where it is regular."""
        found = {name: spec.cadence or self.cadence for name, spec in self.fields.items()}
        return {name: cadence for name, cadence in found.items() if cadence is not None}

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit of every measure and derived metric."""
        return {name: self.fields[name].unit for name in self.measures} | {
            name: spec.unit for name, spec in self.derived.items()
        }

    @cached_property
    def sources(self) -> dict[str, tuple[Source, ...]]:
        """Per field the payload names that feed it, its own first."""
        return {
            name: tuple(
                Source(alias, self.conversion(unit, spec.unit))
                for alias, unit in {name: spec.unit, **spec.aliases}.items()
            )
            for name, spec in self.fields.items()
        }

    @cached_property
    def expressions(self) -> dict[str, Expression]:
        """The derived metrics, compiled."""
        return {name: self.compiled(spec) for name, spec in self.derived.items()}

    def compiled(self, spec: DerivedSpec) -> Expression:
        """A derived metric that gives its result in the unit of `spec`.

        Raises:
            ValueError: it is no expression, or its units do not fit.
        """
        numbers = {name: float(text.split()[0]) for name, text in spec.constants.items()}
        expression = Expression(spec.expression, self.measures, numbers)
        units = {name: self.unit(self.fields[name].unit) for name in expression.inputs}
        units |= {name: self.unit("".join(text.split()[1:])) for name, text in spec.constants.items()}
        found, wanted = unit_of(spec.expression, units), self.unit(spec.unit)
        factor = found.ratio(wanted)
        if factor is None:
            raise ValueError(f"the result is in {found.text}, which does not become {wanted.text}")
        return Expression(spec.expression, self.measures, numbers, factor)

    @cached_property
    def reported_units(self) -> dict[str, dict[str, Linear]]:
        """Per measure what a message may name as its unit (`MetricSpec.unit`), with the conversion; nothing else."""
        return {name: self._reported(self.fields[name]) for name in self.measures}

    def _reported(self, spec: FieldSpec) -> dict[str, Linear]:
        found = {} if spec.unit in self.own_units else dict(convertible(spec.unit))
        written = {unit: unit for unit in (spec.unit, *spec.aliases.values())}
        for text, unit in {**written, **(self.metric.units if self.metric else {})}.items():
            # What stands for another unit than it says, as C for degC, means that alone.
            found.pop(text, None)
            with suppress(ValueError):
                found[text] = self.conversion(unit, spec.unit)
        return found

    def unit(self, text: str) -> Unit:
        """The unit that a name means in this file; `ValueError` if none."""
        return own_unit(text) if text in self.own_units else parse_unit(text)

    def conversion(self, reported: str, kept: str) -> Linear:
        """See `headrace.schemas.units.conversion`; the type's own units convert only to themselves."""
        if reported != kept and (reported in self.own_units or kept in self.own_units):
            raise ValueError(f"cannot convert {reported} to {kept}: a unit of the type's own converts only to itself")
        return IDENTITY if reported == kept else conversion(reported, kept)

    @cached_property
    def known_names(self) -> frozenset[str]:
        """Every payload name that has a meaning; the others are kept in `extra`."""
        fed = {source.name for sources in self.sources.values() for source in sources}
        envelope = (self.metric.name, self.metric.value, self.metric.unit) if self.metric else ()
        return frozenset({*fed, *self.time.fields, *self.identity, *(name for name in envelope if name)})

    @cached_property
    def numeric_sources(self) -> dict[str, tuple[str, Source]]:
        """Payload names of measures, each with its field and conversion."""
        return {source.name: (name, source) for name in self.measures for source in self.sources[name]}
