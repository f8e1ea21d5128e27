"""An edge node for tests, from the Sparkplug 3.0 specification and Protocol Buffers' encoding; shares no code."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Datatypes (6.4.16), with the field of Metric and how it is written: v varint, f float, d double, s text, b bytes.
TYPES: Mapping[str, tuple[int, int, str]] = {
    "Int8": (1, 10, "v"), "Int16": (2, 10, "v"), "Int32": (3, 10, "v"), "Int64": (4, 11, "v"),
    "UInt8": (5, 10, "v"), "UInt16": (6, 10, "v"), "UInt32": (7, 10, "v"), "UInt64": (8, 11, "v"),
    "Float": (9, 12, "f"), "Double": (10, 13, "d"), "Boolean": (11, 14, "v"), "String": (12, 15, "s"),
    "DateTime": (13, 11, "v"), "Text": (14, 15, "s"), "UUID": (15, 15, "s"), "DataSet": (16, 17, "b"),
    "Bytes": (17, 16, "b"), "File": (18, 16, "b"), "Template": (19, 18, "b"), "Int16Array": (23, 16, "b"),
}  # fmt: skip


def varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    digits = []
    while True:
        value, low = divmod(value, 128)
        digits.append(low + (128 if value else 0))
        if not value:
            return bytes(digits)


def number(place: int, value: int) -> bytes:
    """A field with a number."""
    return varint(place * 8) + varint(value)


def piece(place: int, value: bytes) -> bytes:
    """A field with a length."""
    return varint(place * 8 + 2) + varint(len(value)) + value


def value_field(datatype: str, value: Any) -> bytes:
    """The field of Metric with the value; what is negative as two's complement of its field's 32 or 64 bits."""
    _, place, how = TYPES[datatype]
    if how == "v":
        return number(place, int(value) % (1 << (32 if place == 10 else 64)))
    if how == "f":
        return varint(place * 8 + 5) + struct.pack("<f", value)
    if how == "d":
        return varint(place * 8 + 1) + struct.pack("<d", value)
    return piece(place, value.encode() if how == "s" else value)


def metric(
    name: str | None,
    datatype: str,
    value: Any,
    *,
    alias: int | None = None,
    timestamp: int | None = None,
    typed: bool = True,
    null: bool = False,
) -> bytes:
    """A Metric."""
    parts = [] if name is None else [piece(1, name.encode())]
    parts += [] if alias is None else [number(2, alias)]
    parts += [] if timestamp is None else [number(3, timestamp)]
    parts += [number(4, TYPES[datatype][0])] if typed else []
    parts += [number(7, 1)] if null else [value_field(datatype, value)]
    return b"".join(parts)


def payload(metrics: Sequence[bytes], seq: int | None, timestamp: int | None) -> bytes:
    """A Payload."""
    parts = [] if timestamp is None else [number(1, timestamp)]
    parts += [piece(2, each) for each in metrics]
    parts += [] if seq is None else [number(3, seq)]
    return b"".join(parts)


@dataclass
class EdgeNode:
    """Makes the messages of one edge node: topic and payload, in the order in which it would publish them.

    Metrics are `{name: (alias, datatype)}`, of the node under the device "".
    """

    group: str = "plant"
    name: str = "press"
    metrics: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    bd_seq: int = 0
    seq: int = 0

    def topic(self, kind: str, device: str = "") -> str:
        """Where it publishes."""
        return f"spBv1.0/{self.group}/{kind}/{self.name}" + (f"/{device}" if device else "")

    def connect(self) -> tuple[str, bytes]:
        """A new session; its will."""
        self.bd_seq = (self.bd_seq + 1) % 256
        return self.death()

    def death(self) -> tuple[str, bytes]:
        """NDEATH of the session."""
        return self.topic("NDEATH"), payload([metric("bdSeq", "Int64", self.bd_seq)], None, None)

    def births(self, now: int, values: Mapping[tuple[str, str], Any]) -> list[tuple[str, bytes]]:
        """NBIRTH, and DBIRTH of every device."""
        made = []
        for device in sorted({"", *self.metrics}):
            made.append(self.device_birth(device, now, values) if device else self.node_birth(now, values))
        return made

    def node_birth(self, now: int, values: Mapping[tuple[str, str], Any]) -> tuple[str, bytes]:
        """NBIRTH."""
        self.seq = 0
        controls = [
            metric("bdSeq", "Int64", self.bd_seq, timestamp=now),
            metric("Node Control/Rebirth", "Boolean", False, timestamp=now),
        ]
        return self.topic("NBIRTH"), payload([*controls, *self._declared("", now, values)], 0, now)

    def device_birth(self, device: str, now: int, values: Mapping[tuple[str, str], Any]) -> tuple[str, bytes]:
        """DBIRTH."""
        return self.topic("DBIRTH", device), payload(self._declared(device, now, values), self._next(), now)

    def device_death(self, device: str, now: int) -> tuple[str, bytes]:
        """DDEATH."""
        return self.topic("DDEATH", device), payload([], self._next(), now)

    def data(self, device: str, now: int, values: Mapping[str, Any]) -> tuple[str, bytes]:
        """NDATA or DDATA, by alias."""
        made = []
        for name, value in values.items():
            alias, datatype = self.metrics[device][name]
            made.append(metric(None, datatype, value, alias=alias, timestamp=now, typed=False))
        return self.topic("DDATA" if device else "NDATA", device), payload(made, self._next(), now)

    def _declared(self, device: str, now: int, values: Mapping[tuple[str, str], Any]) -> list[bytes]:
        return [
            metric(name, datatype, values[device, name], alias=alias, timestamp=now)
            for name, (alias, datatype) in self.metrics.get(device, {}).items()
        ]

    def _next(self) -> int:
        self.seq = (self.seq + 1) % 256
        return self.seq
