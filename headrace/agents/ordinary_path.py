"""How ingest reads payloads of the ordinary shape, several times as fast as in full.

Only accepts: whatever is not plainly right is left to `headrace.agents.exact_path`, which alone refuses. What is
accepted here is read the same there, see `test_both_paths_read_the_same`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import orjson
from msgspec.structs import astuple

from headrace.agents.event_time import EARLIEST_MS, LATEST_MS, milliseconds
from headrace.agents.exact_path import Limits
from headrace.agents.extras import Extras, encode_extra
from headrace.agents.normalised import Normalised
from headrace.agents.validate import LARGEST_EXACT
from headrace.schemas.device_type import DeviceType, FieldSpec, Source
from headrace.schemas.readings import Floats, Ints
from headrace.schemas.units import IDENTITY
from headrace.tables.seen_block import Bools

#: Values by payload name, one per message, None where it has none; without names that no message has.
Columns = Mapping[str, Sequence[Any]]

#: All keys of a device type's file that this path knows the meaning of. Types that use others are read in full.
_UNDERSTOOD = {
    "type": {
        "name",
        "version",
        "description",
        "cadence",
        "time",
        "identity",
        "fields",
        "derived",
        "unknown_fields",
        "own_units",
    },
    "time": {"fields", "formats", "zone"},
    "field": {"type", "unit", "min", "max", "required", "aliases", "description", "cadence", "kind"},
}
_TEXT = str | None
# Numbers are read as doubles at once: as integers they could have more digits than orjson takes.
_TYPES: dict[str, Any] = {"number": float | None, "integer": float | None, "boolean": bool | None, "text": _TEXT}
_BACKSLASH = ord("\\")
#: Sets of field names for which a decoder is kept.
_MOST_SHAPES = 64
#: If most of so many messages at the beginning cannot be read here, the rest of a batch is not tried.
_TRIED = 64


def ordinary_path(device_type: DeviceType, limits: Limits) -> "OrdinaryPath | None":
    """The fast path of a device type; None if it has none."""
    used = device_type.model_dump(exclude_defaults=True)
    understood = (
        used.keys() <= _UNDERSTOOD["type"]
        and used.get("time", {}).keys() <= _UNDERSTOOD["time"]
        and all(field.keys() <= _UNDERSTOOD["field"] for field in used["fields"].values())
    )
    envelope = [*device_type.time.fields, *device_type.identity]
    return OrdinaryPath(device_type, limits) if understood and len(set(envelope)) == len(envelope) else None


class _Shape:
    """Messages that have fields of these names, and no others.

    Args:
        types: of their values, by name.
    """

    def __init__(self, types: Mapping[str, Any]) -> None:
        self.names = tuple(types)
        attributes = [f"f{place}" for place in range(len(types))]
        message = msgspec.defstruct(
            "Message",
            [(attribute, kind, None) for attribute, kind in zip(attributes, types.values(), strict=True)],
            rename=dict(zip(attributes, types, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        self.decode = msgspec.json.Decoder(message).decode

    def read(self, payloads: Sequence[bytes], most: int) -> list[Any] | None:
        """All of them, or None if any of them is otherwise, larger than `most` bytes, or has a backslash."""
        try:
            if max(map(len, payloads), default=0) > most or _BACKSLASH in b"".join(payloads):
                return None
            return list(map(self.decode, payloads))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class OrdinaryPath:
    """Reads payloads that have nothing but known fields, each of the type it should be.

    Args:
        device_type: of all payloads, such as `ordinary_path` lets through.
        limits: what no message may exceed.
    """

    def __init__(self, device_type: DeviceType, limits: Limits) -> None:
        self._type = device_type
        self._limits = limits
        time = float | str | None if "iso8601" in device_type.time.formats else float | None
        types: dict[str, Any] = dict.fromkeys(device_type.time.fields, time)
        types |= dict.fromkeys(device_type.identity, _TEXT)
        for field, spec in device_type.fields.items():
            types |= {source.name: _TYPES[spec.type] for source in device_type.sources[field]}
        # Names that JSON must escape are left out: payloads with a backslash are not read here.
        self._types = {name: kind for name, kind in types.items() if orjson.dumps(name) == f'"{name}"'.encode()}
        self._every = _Shape(self._types)
        # Devices send the same fields again and again: those of the last batch alone take a third less time to read.
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._last: _Shape | None = None

    def read(self, payloads: Sequence[bytes | None], device_ids: list[str], append_times: Ints) -> Normalised:
        """Those of the messages that are plainly right.

        Args:
            payloads: as the devices sent them.
            device_ids: one per message.
            append_times: (n,) int64, ms.
        """
        shape, messages, rows = self._messages(payloads)
        if len(rows) < len(payloads):
            device_ids, append_times = [device_ids[row] for row in rows], append_times[rows]
        given = zip(shape.names, zip(*map(astuple, messages), strict=True), strict=bool(messages))
        columns = {name: values for name, values in given if _some(values)}
        if shape is self._every and len(rows) == len(payloads) >= _TRIED:
            self._last = self._shape(tuple(columns))
        right = np.ones(len(rows), dtype=bool)
        self._check_identity(columns, device_ids, right)
        times = self._times(columns, append_times, right)
        measures = self._measures(columns, right)
        texts = self._texts(columns, right)
        _check_not_empty([*(~np.isnan(column) for column in measures.values()), *map(_given, texts.values())], right)
        found = Normalised(np.array(rows, dtype=np.int64), times, measures, _extras(texts) if texts else None)
        return found.where(right)

    def _shape(self, names: tuple[str, ...]) -> _Shape | None:
        if names not in self._shapes and len(self._shapes) < _MOST_SHAPES:
            self._shapes[names] = _Shape({name: self._types[name] for name in names})
        return self._shapes.get(names)

    def _messages(self, payloads: Sequence[bytes | None]) -> tuple[_Shape, list[Any], Sequence[int]]:
        """Payloads with nothing but known fields of the types they should have, and their places."""
        decode, most = self._every.decode, self._limits.payload_bytes
        if self._last is not None:
            found = None if None in payloads else self._last.read(cast("Sequence[bytes]", payloads), most)
            if found is not None:
                return self._last, found, range(len(payloads))
            self._last = None
        messages: list[Any] = []
        rows: list[int] = []
        for row, payload in enumerate(payloads):
            if row == _TRIED and len(rows) < _TRIED // 2:
                break
            # The exact path knows what to do about half a surrogate pair and U+0000; only escapes can make them.
            if payload is None or _BACKSLASH in payload or len(payload) > most:
                continue
            try:
                messages.append(decode(payload))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            rows.append(row)
        return self._every, messages, rows

    def _check_identity(self, columns: Columns, device_ids: list[str], right: Bools) -> None:
        for field in self._type.identity:
            claimed = columns.get(field)
            if claimed is not None and list(claimed) != device_ids:
                right &= [claim is None or claim == own for claim, own in zip(claimed, device_ids, strict=True)]

    def _times(self, columns: Columns, append_times: Ints, right: Bools) -> Ints:
        spec = self._type.time
        present = [columns[name] for name in spec.fields if name in columns]
        values = present[0] if present else [None] * len(right)
        for others in present[1:]:
            values = _first(values, others)
        if "epoch_ms" not in spec.formats or str in set(map(type, values)):
            values = [self._moment(value) for value in values]
        times = np.rint(np.array(values, dtype=np.float64))
        right &= (times >= EARLIEST_MS) & (times <= np.minimum(append_times + self._limits.ahead_ms, LATEST_MS))
        return np.where(right, times, 0).astype(np.int64)

    def _moment(self, value: float | str | None) -> int | None:
        try:
            return milliseconds(value, self._type.time)
        except ValueError:
            return None

    def _measures(self, columns: Columns, right: Bools) -> dict[str, Floats]:
        measures = {}
        for field in self._type.measures:
            spec, column = self._type.fields[field], None
            for source in self._type.sources[field]:
                if source.name not in columns:
                    continue
                given = _numbers(source, columns[source.name], right)
                if column is None:
                    column = given
                else:
                    right &= np.isnan(column) | np.isnan(given)
                    column = np.where(np.isnan(column), given, column)
            if column is not None:
                _check_range(spec, column, right)
                measures[field] = column
            if spec.required:
                right &= False if column is None else ~np.isnan(column)
        return measures

    def _texts(self, columns: Columns, right: Bools) -> dict[str, list[str | None]]:
        texts = {}
        for field in self._type.texts:
            given = [columns[source.name] for source in self._type.sources[field] if source.name in columns]
            values: list[str | None] = [None] * len(right)
            for more in given:
                right &= ~(_given(values) & _given(more))
                values = _first(values, more)
            if given:
                texts[field] = values
            if self._type.fields[field].required:
                right &= _given(values)
        return texts


def _some(values: Sequence[Any]) -> bool:
    """Whether any value is not None; asks the first before all of them."""
    return values[0] is not None or values.count(None) < len(values)


def _given(values: Sequence[Any]) -> Bools:
    return np.array([value is not None for value in values], dtype=bool)


def _first(values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """Of each pair the value, or where it is None the other."""
    return [other if value is None else value for value, other in zip(values, others, strict=True)]


def _numbers(source: Source, values: Sequence[Any], right: Bools) -> Floats:
    column = np.array(values, dtype=np.float64)
    if source.linear != IDENTITY:
        with np.errstate(over="ignore"):
            column = column * source.linear.scale + source.linear.offset
        right &= ~np.isinf(column)
    return column


def _check_range(spec: FieldSpec, column: Floats, right: Bools) -> None:
    if spec.min is not None:
        right &= ~(column < spec.min)
    if spec.max is not None:
        right &= ~(column > spec.max)
    if spec.type == "integer":
        right &= np.isnan(column) | ((column == np.floor(column)) & (np.abs(column) <= LARGEST_EXACT))


def _check_not_empty(given: list[Bools], right: Bools) -> None:
    something = np.zeros(len(right), dtype=bool)
    for each in given:
        something |= each
    right &= something


def _extras(texts: dict[str, list[str | None]]) -> Extras:
    names = list(texts)
    found: Extras = []
    for values in zip(*texts.values(), strict=True):
        extra = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        found.append(encode_extra(extra) if extra else None)
    return found
