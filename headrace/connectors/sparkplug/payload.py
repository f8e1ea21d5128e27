"""Payloads of Sparkplug B 3.0: field numbers and names as in its section 6.4."""

import struct
from typing import Final, NamedTuple

from headrace.connectors.sparkplug.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    BadPayload,
    bytes_field,
    fields,
    varint_field,
)

#: Metrics in one message.
MAX_METRICS = 10_000
#: Bytes of a metric's name.
MAX_NAME_BYTES = 512
#: Names with a meaning of their own (6.4.20 and 5.17).
BD_SEQ, REBIRTH = "bdSeq", "Node Control/Rebirth"
BOOLEAN = 11
#: Which field of `Metric` the value stands in, by its number in the specification.
INT, LONG, FLOAT, DOUBLE, BOOL, STRING, RAW, DATASET, TEMPLATE, EXTENSION = range(10, 20)
_WIRE_TYPES: Final = {
    INT: VARINT, LONG: VARINT, FLOAT: FIXED32, DOUBLE: FIXED64, BOOL: VARINT, STRING: BYTES, RAW: BYTES,
    DATASET: BYTES, TEMPLATE: BYTES, EXTENSION: BYTES,
}  # fmt: skip
Value = int | float | str | bytes | None


class Metric(NamedTuple):
    """One metric of a message.

    Args:
        name, alias: one of them in data, both in a birth where aliases are used.
        timestamp: when the value was taken, ms since 1970 UTC.
        datatype: number of the type; in data it may be left out.
        is_null: there is no value.
        field: where the value stood: `INT` to `EXTENSION`, 0 for nowhere.
        value: as it stood there, of integers unsigned; a data set or template as the bytes of its message.
    """

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    is_null: bool = False
    field: int = 0
    value: Value = None


class Payload(NamedTuple):
    """What a message says; `timestamp` in ms since 1970 UTC, `seq` None where it has none."""

    timestamp: int | None
    metrics: list[Metric]
    seq: int | None

    @property
    def bd_seq(self) -> int | None:
        """Number of the MQTT session that a birth or death belongs to."""
        for metric in self.metrics:
            if metric.name == BD_SEQ and isinstance(metric.value, int):
                return metric.value
        return None


def read_payload(data: bytes) -> Payload:
    """Read a payload. About 4 µs per metric; memory in proportion to the bytes, whoever wrote them.

    Metadata, properties, data sets and templates are not looked into, so that nesting is of no concern.

    Raises:
        BadPayload: it is none, or has more metrics or longer names than are taken.
    """
    timestamp = seq = None
    metrics: list[Metric] = []
    for number, kind, start, stop in fields(data, 0, len(data)):
        if number == 2 and kind == BYTES:
            if len(metrics) == MAX_METRICS:
                raise BadPayload(f"more than {MAX_METRICS:,} metrics in a message")
            metrics.append(_metric(data, start, stop))
        elif number == 1 and kind == VARINT:
            timestamp = start
        elif number == 3 and kind == VARINT:
            seq = start
    return Payload(timestamp, metrics, seq)


def _metric(data: bytes, begin: int, end: int) -> Metric:
    name = alias = timestamp = datatype = value = None
    is_null, field = False, 0
    for number, kind, start, stop in fields(data, begin, end):
        if number == 2 and kind == VARINT:
            alias = start
        elif number == 3 and kind == VARINT:
            timestamp = start
        elif number == 4 and kind == VARINT:
            datatype = start
        elif number == 1 and kind == BYTES:
            if stop - start > MAX_NAME_BYTES:
                raise BadPayload(f"the name of a metric has more than {MAX_NAME_BYTES:,} bytes")
            name = _text(data[start:stop])
        elif number == 7 and kind == VARINT:
            is_null = bool(start)
        elif _WIRE_TYPES.get(number) == kind:
            field, value = number, _value(number, data, start, stop)
    return Metric(name, alias, timestamp, datatype, is_null, field, value)


def _value(field: int, data: bytes, start: int, stop: int) -> Value:
    if field == INT:
        return start & 0xFFFF_FFFF  # a uint32 in more bytes is cut, as by every reader of Protocol Buffers
    if field in (LONG, BOOL):
        return start
    if field == DOUBLE:
        double: float = struct.unpack_from("<d", data, start)[0]
        return double
    if field == FLOAT:
        single: float = struct.unpack_from("<f", data, start)[0]
        return single
    return _text(data[start:stop]) if field == STRING else data[start:stop]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadPayload("a text is not UTF-8") from None


def rebirth_request(now_ms: int) -> bytes:
    """The payload of an NCMD that asks an edge node for its births (tck-id-operational-behavior-data-commands-ncmd-*).

    It has no sequence number (tck-id-payloads-ncmd-seq).
    """
    metric = bytes_field(1, REBIRTH.encode()) + varint_field(3, now_ms) + varint_field(4, BOOLEAN) + varint_field(14, 1)
    return varint_field(1, now_ms) + bytes_field(2, metric)
