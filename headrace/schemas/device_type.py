"""Device types: what a kind of device sends, from one file that drives decoding, validation, units and tables."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from headrace.schemas.expression import Expression
from headrace.schemas.units import Linear, conversion

#: A field's name is also the name of a column; PostgreSQL keeps 63 bytes of it.
FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
TypeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
TimeFormat = Literal["epoch_ms", "epoch_s", "iso8601"]

#: Columns that every reading has, whatever its type.
RESERVED = frozenset({"time", "device_id", "device_type", "message_id", "extra"})
#: How close an example's result must be, relative.
EXAMPLE_TOLERANCE = 1e-3


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TimeSpec(Model):
    """Where a payload has its event time, and how it is written.

    Args:
        fields: names to look for; the first that is present counts.
        formats: epoch_ms and epoch_s are JSON numbers, iso8601 is a text with an offset from UTC.
    """

    fields: tuple[str, ...] = Field(("timestamp",), min_length=1)
    formats: tuple[TimeFormat, ...] = Field(("epoch_ms", "iso8601"), min_length=1)

    @model_validator(mode="after")
    def _one_epoch(self) -> Self:
        if {"epoch_ms", "epoch_s"} <= set(self.formats):
            raise ValueError("formats may have epoch_ms or epoch_s, not both: a number could be either")
        return self


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


class Example(Model):
    """Tried when the file is loaded: with these inputs the expression gives `result`, to a thousandth."""

    given: Mapping[str, float]
    result: float


class DerivedSpec(Model):
    """A metric computed from others of the same reading. Absent where one of them is.

    Args:
        expression: see `Expression`.
        unit: of the result.
        examples: checked at load.
    """

    expression: str
    unit: str = "1"
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
        time: see `TimeSpec`.
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
    time: TimeSpec = TimeSpec()
    identity: tuple[str, ...] = ("device_id", "deviceId")
    fields: Mapping[FieldName, FieldSpec] = Field(min_length=1)
    derived: Mapping[FieldName, DerivedSpec] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        checks = (self._name_mistakes, self._range_mistakes, self._conversion_mistakes, self._derived_mistakes)
        mistakes = [mistake for check in checks for mistake in check()]
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
                Source(alias, conversion(unit, spec.unit)) for alias, unit in {name: spec.unit, **spec.aliases}.items()
            )
            for name, spec in self.fields.items()
        }

    @cached_property
    def expressions(self) -> dict[str, Expression]:
        """The derived metrics, compiled."""
        return {name: Expression(spec.expression, self.measures) for name, spec in self.derived.items()}

    @cached_property
    def known_names(self) -> frozenset[str]:
        """Every payload name that has a meaning; the others are kept in `extra`."""
        fed = {source.name for sources in self.sources.values() for source in sources}
        return frozenset({*fed, *self.time.fields, *self.identity})

    def _name_mistakes(self) -> Iterator[str]:
        seen: dict[str, str] = {}
        for name in (*self.fields, *self.derived):
            # PostgreSQL folds column names to lower case unless quoted, and people do not quote.
            folded = name.lower()
            if folded in RESERVED:
                yield f"{name}: the name is reserved"
            if folded in seen:
                yield f"{name}: the name is already used by {seen[folded]}"
            seen.setdefault(folded, name)
        inputs: dict[str, str] = dict.fromkeys(self.time.fields, "time")
        inputs |= dict.fromkeys(self.identity, "identity")
        for field, spec in self.fields.items():
            for name in (field, *spec.aliases):
                if name in inputs:
                    yield f"{field}: the payload name {name!r} already feeds {inputs[name]}"
                inputs.setdefault(name, field)

    def _range_mistakes(self) -> Iterator[str]:
        for name, spec in self.fields.items():
            if spec.type in ("boolean", "text") and (spec.min is not None or spec.max is not None):
                yield f"fields.{name}: min and max have no meaning for {spec.type}"
            if spec.min is not None and spec.max is not None and spec.min > spec.max:
                yield f"fields.{name}: min {spec.min:g} is greater than max {spec.max:g}"
            if spec.kind == "counter" and spec.type in ("boolean", "text"):
                yield f"fields.{name}: a {spec.type} cannot be a counter"

    def _conversion_mistakes(self) -> Iterator[str]:
        for field, spec in self.fields.items():
            for alias, unit in spec.aliases.items():
                try:
                    linear = conversion(unit, spec.unit)
                except ValueError as error:
                    yield f"fields.{field}.aliases.{alias}: {error}"
                else:
                    if linear != (1.0, 0.0) and spec.type in ("boolean", "text"):
                        yield f"fields.{field}.aliases.{alias}: a {spec.type} has no unit to convert"

    def _derived_mistakes(self) -> Iterator[str]:
        for name, spec in self.derived.items():
            try:
                expression = Expression(spec.expression, self.measures)
            except ValueError as error:
                yield f"derived.{name}: {error}"
                continue
            for example in spec.examples:
                missing = set(expression.inputs) - set(example.given)
                if missing:
                    yield f"derived.{name}: an example does not give {', '.join(sorted(missing))}"
                    continue
                got = float(expression.evaluate({key: np.array([value]) for key, value in example.given.items()})[0])
                if not abs(got - example.result) <= EXAMPLE_TOLERANCE * max(1.0, abs(example.result)):
                    yield f"derived.{name}: an example should give {example.result:g} but gives {got:g}"
