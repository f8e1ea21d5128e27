"""What goes wrong with single messages of a simulated device: malformed, conflicting and spoofed ones."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto
from random import Random
from typing import Any

import orjson

from headrace.connectors.fleet_payload import FleetPayload, Written

YEAR_MS = 366 * 24 * 60 * 60 * 1000


class Fault(Enum):
    """What happens to a message; NONE for most."""

    NONE = auto()
    #: The same bytes come twice.
    DUPLICATE = auto()
    #: Held back for some minutes of the clock's time.
    LATE = auto()
    #: Cannot be decoded, or is not valid.
    MALFORMED = auto()
    #: Followed by a message with the same time and other values.
    CONFLICTING = auto()
    #: Names another device in its payload.
    SPOOFED = auto()
    #: Is never sent: its device is silent.
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class FleetTruth:
    """How many messages of each kind were sent; what the ledger has to find.

    `normal` counts every first, sound message (also of a duplicate or conflicting pair) that was not late. So
    stored = normal + late, duplicate = duplicate, conflict = conflicting, dead-lettered = malformed + spoofed.
    """

    normal: int = 0
    duplicate: int = 0
    late: int = 0
    malformed: int = 0
    conflicting: int = 0
    spoofed: int = 0

    @property
    def total(self) -> int:
        """All messages sent."""
        return sum(int(getattr(self, kind.name)) for kind in fields(self))


def encode(document: Any) -> bytes:
    """A payload: JSON."""
    return orjson.dumps(document)


def _with(written: Written, name: str, value: Any) -> bytes:
    return encode({**written.document, name: value})


def _cut(written: Written, *added: bytes) -> bytes:
    return b"".join([encode(written.document)[:-1], *added])


def _not_a_number(written: Written) -> bytes:
    marked = _with(written, written.number, "*")
    return marked.replace(b'"*"', b"NaN", 1)


#: Each makes, of a message and its event time, a payload that `agents.ingest` must dead-letter.
MALFORMATIONS: tuple[Callable[[Written, FleetPayload, int], bytes], ...] = (
    lambda written, payload, time: b"",
    lambda written, payload, time: b"temp=25.5;humidity=60",
    lambda written, payload, time: encode(written.document)[:-9],
    lambda written, payload, time: _not_a_number(written),
    lambda written, payload, time: _with(written, written.number, "warm"),
    lambda written, payload, time: _with(written, written.number, [written.document[written.number]]),
    lambda written, payload, time: encode(list(written.document.values())),
    lambda written, payload, time: _with(written, written.time, payload.time(time % 1000)),
    lambda written, payload, time: _with(written, written.time, payload.time(time + YEAR_MS)),
    lambda written, payload, time: _cut(written, b',"note":"\xff\xfe"}'),
    lambda written, payload, time: _cut(written, rb',"note":"\ud800"}'),
)


def malformed(written: Written, payload: FleetPayload, time_ms: int, random: Random) -> bytes:
    """One of `MALFORMATIONS`, drawn."""
    return random.choice(MALFORMATIONS)(written, payload, time_ms)
