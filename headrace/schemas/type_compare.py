"""Whether a new version of a device type does for the messages and the readers of the old one."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from headrace.schemas.device_type import DerivedSpec, DeviceType, FieldSpec, MetricSpec, TimeSpec


class Change(NamedTuple):
    """What is different, where, and whether what worked with the old version works with the new one."""

    place: str
    what: str
    compatible: bool


def compare(old: DeviceType, new: DeviceType) -> list[Change]:
    """Every change; empty if the two say the same."""
    changes = [*_type(old, new), *_fields(old, new), *_derived(old.derived, new.derived)]
    unlike = old.model_dump(exclude={"version"}) != new.model_dump(exclude={"version"})
    if unlike and not changes:
        changes.append(Change("", "descriptions or examples changed", True))
    if (unlike and new.version <= old.version) or new.version < old.version:
        changes.append(Change("version", f"must be greater than {old.version}, and is {new.version}", False))
    return changes


def _type(old: DeviceType, new: DeviceType) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("name", _changed(old.name, new.name), False)
    if old.cadence != new.cadence:
        yield Change("cadence", _changed(old.cadence, new.cadence), True)
    if old.unknown_fields != new.unknown_fields:
        yield Change("unknown_fields", _changed(old.unknown_fields, new.unknown_fields), new.unknown_fields == "keep")
    for name in sorted({*new.identity} - {*old.identity}):
        yield Change("identity", f"{name} must be the device's id now", False)
    for name in sorted({*old.identity} - {*new.identity}):
        yield Change("identity", f"{name} need not be the device's id any more", True)
    yield from _time(old.time, new.time)
    yield from _metric(old.metric, new.metric)


def _time(old: TimeSpec, new: TimeSpec) -> Iterator[Change]:
    if old.fields != new.fields:
        # The first that is present counts: what was there must stay, in its order, before anything new.
        kept = new.fields[: len(old.fields)] == old.fields
        yield Change("time.fields", _changed(list(old.fields), list(new.fields)), kept)
    if {*old.formats} != {*new.formats}:
        yield Change("time.formats", _changed(list(old.formats), list(new.formats)), {*old.formats} <= {*new.formats})
    if old.zone != new.zone:
        yield Change("time.zone", _changed(old.zone, new.zone), old.zone is None)
    if old.missing != new.missing:
        yield Change("time.missing", _changed(old.missing, new.missing), new.missing == "append")


def _metric(old: MetricSpec | None, new: MetricSpec | None) -> Iterator[Change]:
    if old is None or new is None:
        if old != new:
            yield Change("metric", "came" if old is None else "is gone", False)
        return
    for part in ("name", "value", "unit"):
        before, after = getattr(old, part), getattr(new, part)
        if before != after:
            yield Change(f"metric.{part}", _changed(before, after), False)
    for written in sorted({*old.units, *new.units}):
        before, after = old.units.get(written), new.units.get(written)
        if before != after:
            yield Change(f"metric.units.{written}", _changed(before, after), before is None)


def _fields(old: DeviceType, new: DeviceType) -> Iterator[Change]:
    for name, spec in old.fields.items():
        place = f"fields.{name}"
        if name not in new.fields:
            yield Change(place, "is gone", False)
        else:
            yield from _field(place, spec, new.fields[name])
    for name, spec in new.fields.items():
        if name not in old.fields:
            yield Change(f"fields.{name}", "came, and is required" if spec.required else "came", not spec.required)


def _field(place: str, old: FieldSpec, new: FieldSpec) -> Iterator[Change]:
    if old.type != new.type:
        yield Change(f"{place}.type", _changed(old.type, new.type), (old.type, new.type) == ("integer", "number"))
    for part in ("unit", "kind"):
        before, after = getattr(old, part), getattr(new, part)
        if before != after:
            yield Change(f"{place}.{part}", _changed(before, after), False)
    if old.min != new.min:
        wider = new.min is None or (old.min is not None and new.min < old.min)
        yield Change(f"{place}.min", _changed(old.min, new.min), wider)
    if old.max != new.max:
        wider = new.max is None or (old.max is not None and new.max > old.max)
        yield Change(f"{place}.max", _changed(old.max, new.max), wider)
    if old.required != new.required:
        yield Change(f"{place}.required", _changed(old.required, new.required), old.required)
    if old.nullable != new.nullable:
        yield Change(f"{place}.nullable", _changed(old.nullable, new.nullable), new.nullable)
    if old.cadence != new.cadence:
        yield Change(f"{place}.cadence", _changed(old.cadence, new.cadence), True)
    for name in {**old.aliases, **new.aliases}:
        before, after = old.aliases.get(name), new.aliases.get(name)
        if before != after:
            what = "is gone" if after is None else "came" if before is None else _changed(before, after)
            yield Change(f"{place}.aliases.{name}", what, before is None)


def _derived(old: Mapping[str, DerivedSpec], new: Mapping[str, DerivedSpec]) -> Iterator[Change]:
    for name, spec in old.items():
        place = f"derived.{name}"
        if name not in new:
            yield Change(place, "is gone", False)
            continue
        if spec.unit != new[name].unit:
            yield Change(f"{place}.unit", _changed(spec.unit, new[name].unit), False)
        if (spec.expression, spec.constants) != (new[name].expression, new[name].constants):
            yield Change(place, "is computed in another way", True)
    for name in new:
        if name not in old:
            yield Change(f"derived.{name}", "came", True)


def _changed(before: object, after: object) -> str:
    return f"was {_shown(before)}, is {_shown(after)}"


def _shown(value: object) -> str:
    return "left out" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
