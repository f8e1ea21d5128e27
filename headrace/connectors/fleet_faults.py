"""What goes wrong on the way from a simulated device: malformed, conflicting and spoofed messages."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto
from random import Random
from typing import Any

import orjson

YEAR_MS = 366 * 24 * 60 * 60 * 1000

Document = dict[str, Any]


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


def conflicting(document: Document) -> bytes:
    """The same device and time, but warmer."""
    return encode({**document, "temp": round(document["temp"] + 1.5, 2)})


def spoofed(document: Document, other_device: str) -> bytes:
    """A payload that claims to be another device's."""
    return encode({**document, "device_id": other_device})


#: Each makes a payload that `agents.ingest` must dead-letter.
MALFORMATIONS: tuple[Callable[[Document], bytes], ...] = (
    lambda document: b"",
    lambda document: b"temp=25.5;humidity=60",
    lambda document: encode(document)[:-9],
    lambda document: encode(document).replace(b'"temp":', b'"temp":NaN,"was":', 1),
    lambda document: encode({**document, "temp": "warm"}),
    lambda document: encode({**document, "temp": [document["temp"]]}),
    lambda document: encode([document["temp"], document["timestamp"]]),
    lambda document: encode({**document, "timestamp": document["timestamp"] % 1000}),
    lambda document: encode({**document, "timestamp": document["timestamp"] + YEAR_MS}),
    lambda document: encode(document)[:-1] + b',"note":"\xff\xfe"}',
    lambda document: encode(document)[:-1] + rb',"note":"\ud800"}',
)


def malformed(document: Document, random: Random) -> bytes:
    """One of `MALFORMATIONS`, drawn."""
    return random.choice(MALFORMATIONS)(document)
