"""Ingest: what no device type describes, counted; and the messages of unknown types that are kept all the same."""

from collections.abc import Mapping

import orjson

from headrace.agents.extras import encode_extra
from headrace.agents.ingest_outputs import Group
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.catch_all import REPORTED_TYPE

#: Names that are counted one by one; further ones are counted together, as "...".
MAX_NAMES = 1000
OTHERS = "..."


class Strangers:
    """Messages since the start that had what no device type describes, by name. Bounded, whatever devices send.

    Args:
        metrics: counts too.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        #: Messages by device type and unknown field.
        self.fields: dict[tuple[str, str], int] = {}
        #: Messages by unknown device type; empty for none at all.
        self.types: dict[str, int] = {}

    def count_fields(self, device_type: str, unknown: Mapping[str, int]) -> None:
        """Add the messages of a batch that had each unknown field."""
        for name, count in unknown.items():
            key = (device_type, name)
            if key not in self.fields and len(self.fields) >= MAX_NAMES:
                key = (device_type, OTHERS)
            self.fields[key] = self.fields.get(key, 0) + count
            self._metrics.count("headrace_unknown_fields_total", count, device_type=device_type, field=key[1])

    def count_type(self, name: str, count: int) -> None:
        """Add the messages of a batch that were of an unknown type."""
        key = name if name in self.types or len(self.types) < MAX_NAMES else OTHERS
        self.types[key] = self.types.get(key, 0) + count
        self._metrics.count("headrace_unknown_types_total", count, device_type=key)


def label(group: Group, records: Records) -> None:
    """Put the type that each message was labelled with beside what it says, under `REPORTED_TYPE`."""
    names = records.header(topics.DEVICE_TYPE)
    extras = group.messages.extras or [None] * len(group.rows)
    group.messages.extras = [
        _labelled(extra, name.decode(errors="replace")) if (name := names[row]) else extra
        for row, extra in zip(group.rows, extras, strict=True)
    ]


def _labelled(extra: bytes | None, name: str) -> bytes:
    return encode_extra({REPORTED_TYPE: name} | orjson.loads(extra or b"{}"))
