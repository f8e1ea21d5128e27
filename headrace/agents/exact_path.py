"""How ingest reads a payload in full: whatever is JSON, one document each, with a reason for all it refuses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from headrace.agents.decode import Reasons, decode
from headrace.agents.event_time import event_times
from headrace.agents.extras import Extras, extras
from headrace.agents.identify import check_identity
from headrace.agents.named_metric import spread
from headrace.agents.normalised import Normalised
from headrace.agents.stated_units import convert
from headrace.agents.validate import validate
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Floats, Ints
from headrace.schemas.units import STATED_UNITS


class Limits(NamedTuple):
    """What no message may exceed: bytes of a payload, and ms that an event time is ahead of the append time."""

    payload_bytes: int
    ahead_ms: int


def read_exactly(
    device_type: DeviceType,
    limits: Limits,
    payloads: Sequence[bytes | None],
    device_ids: list[str],
    append_times: Ints,
    reasons: Reasons,
) -> tuple[Normalised, dict[str, int]]:
    """The messages that are right, and how many of them have each unknown field.

    Args:
        device_type: of all of them.
        limits: what no message may exceed.
        payloads: as the devices sent them.
        device_ids: one per message.
        append_times: (n,) int64, ms.
        reasons: gets an entry, by place, for each message that is refused.
    """
    documents = decode(payloads, limits.payload_bytes, reasons)
    if device_type.metric is not None:
        documents = spread(device_type, documents, reasons)
    names: set[str] = set().union(*documents)
    if STATED_UNITS in names:
        documents = convert(device_type, documents, reasons)
        names = set().union(*documents)
    check_identity(documents, device_ids, device_type.identity, names, reasons)
    times, untimed = event_times(documents, device_type.time, names, append_times, limits.ahead_ms, reasons)
    measures = validate(device_type, documents, names, reasons)
    others, unknown = extras(device_type, documents, names, reasons)
    _refuse_empty(measures, others, len(payloads), reasons)
    right = np.ones(len(payloads), dtype=bool)
    right[list(reasons)] = False
    return Normalised(np.arange(len(payloads)), times, measures, others, untimed).where(right), unknown


def _refuse_empty(measures: Mapping[str, Floats], others: Extras | None, total: int, reasons: Reasons) -> None:
    empty = np.ones(total, dtype=bool)
    for column in measures.values():
        empty &= np.isnan(column)
    for place in empty.nonzero()[0].tolist():
        if others is None or others[place] is None:
            reasons.setdefault(place, "no measure and no other field")
