"""What a birth certificate declares: the names, aliases and datatypes of a node's or a device's metrics."""

import zlib
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import NamedTuple

import orjson

from headrace.connectors.sparkplug.payload import BD_SEQ, Metric, Payload
from headrace.connectors.sparkplug.values import json_value
from headrace.connectors.sparkplug.wire import BadPayload

#: Metrics that are no telemetry: the session's number, and where commands are written to.
_CONTROLS = ("Node Control/", "Device Control/")


class UnknownMetric(Exception):
    """Data of a metric that no birth has declared; the text says which."""


class Catalogue(NamedTuple):
    """The metrics of one birth.

    Args:
        names: by alias.
        datatypes: by name; None where the birth does not say.
        connection: names the life that began with the birth, for presence; empty once it has ended.
    """

    names: dict[int, str]
    datatypes: dict[str, int | None]
    connection: str = ""

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> "Catalogue":
        """What a birth with these metrics declares.

        Raises:
            BadPayload: a metric has no name, or two have one alias (tck-id-payloads-alias-uniqueness).
        """
        names: dict[int, str] = {}
        datatypes: dict[str, int | None] = {}
        for metric in metrics:
            if not metric.name:
                raise BadPayload("a metric of a birth certificate has no name")
            if metric.alias is not None and names.setdefault(metric.alias, metric.name) != metric.name:
                raise BadPayload(f"alias {metric.alias} stands for two metrics")
            datatypes[metric.name] = metric.datatype
        if len(set(names.values())) < len(names):
            raise BadPayload("a metric of a birth certificate has two aliases")
        return cls(names, datatypes)

    def dump(self) -> bytes:
        """As it is stored."""
        aliases = {name: alias for alias, name in self.names.items()}
        metrics = [(name, datatype, aliases.get(name)) for name, datatype in self.datatypes.items()]
        return zlib.compress(orjson.dumps([metrics, self.connection]), 1)

    @classmethod
    def load(cls, stored: bytes) -> "Catalogue":
        """As it was."""
        metrics, connection = orjson.loads(zlib.decompress(stored))
        names = {alias: name for name, _, alias in metrics if alias is not None}
        return cls(names, {name: datatype for name, datatype, _ in metrics}, connection)


NOTHING = Catalogue({}, {})


def documents(payload: Payload, catalogue: Catalogue, otherwise_ms: int, time_field: str, most: int) -> list[bytes]:
    """The values of a message as JSON objects, one per timestamp, in the order of the message.

    A metric that comes twice with one timestamp makes another object. Controls and `bdSeq` are left out, and so is an
    object with nothing but nulls, of which nothing could be stored.

    Args:
        otherwise_ms: timestamp where neither metric nor message has one.
        time_field: of the objects with their timestamp; a metric of that name gets a `_` behind it.
        most: bytes that they may have: aliases stand for names that are much longer.
    Raises:
        UnknownMetric: the catalogue does not explain it.
        BadPayload: a value is not of its datatype, or they have too many bytes.
    """
    found: list[dict[str, object]] = []
    of_time: dict[int, list[dict[str, object]]] = {}
    times_given: dict[tuple[int, str], int] = {}
    least = 0
    if payload.timestamp is not None:
        otherwise_ms = payload.timestamp
    for name, metric, datatype in _named(payload.metrics, catalogue):
        value = json_value(metric, datatype)
        least += _least_bytes(value)
        if least > most:
            raise _too_large(most)
        if name == BD_SEQ or name.startswith(_CONTROLS):
            continue
        stamp = otherwise_ms if metric.timestamp is None else metric.timestamp
        key = f"{name}_" if name == time_field else name
        times = times_given[stamp, key] = times_given.get((stamp, key), 0) + 1
        mine = of_time.setdefault(stamp, [])
        if len(mine) < times:
            mine.append({time_field: stamp})
            found.append(mine[-1])
        mine[times - 1][key] = value
    made = [orjson.dumps(each) for each in found if _tells(each, time_field)]
    if sum(map(len, made)) > most:
        raise _too_large(most)
    return made


def _too_large(most: int) -> BadPayload:
    return BadPayload(f"its values with their names have more than {most:,} bytes")


def _least_bytes(value: object) -> int:
    """What an array has in JSON, or less: told before all arrays of a message are in memory."""
    if not isinstance(value, list):
        return 0
    return len(value) * (5 if value and isinstance(value[0], bool) else 2)


def _tells(document: dict[str, object], time_field: str) -> bool:
    """Whether it has a value beside its time; what is no number will be null."""
    return any(
        value is not None and not (isinstance(value, float) and not isfinite(value))
        for name, value in document.items()
        if name != time_field
    )


def _named(metrics: Iterable[Metric], catalogue: Catalogue) -> Iterator[tuple[str, Metric, int | None]]:
    for metric in metrics:
        name = metric.name
        if name is None:
            if metric.alias is None:
                raise BadPayload("a metric has neither name nor alias")
            name = catalogue.names.get(metric.alias)
            if name is None:
                raise UnknownMetric(f"alias {metric.alias}")
        elif metric.datatype is None and name not in catalogue.datatypes:
            raise UnknownMetric(f"{name[:100]!r}, which has no datatype")
        yield name, metric, catalogue.datatypes.get(name)
