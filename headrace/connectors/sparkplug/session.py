"""What is known of an edge node's session, and what its messages come to."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from headrace.connectors.sparkplug.payload import Payload
from headrace.connectors.sparkplug.topic import EdgeTopic


class Message(NamedTuple):
    """A message as it came; `came_ms` in ms since 1970 UTC."""

    about: EdgeTopic
    topic: bytes
    raw: bytes
    payload: Payload
    came_ms: int

    @property
    def seq(self) -> int:
        """Its sequence number; some writers leave a 0 out."""
        return self.payload.seq or 0


class Held(NamedTuple):
    """A message that waits: for those before it, or for a birth. `after` is the sequence number taken last then."""

    message: Message
    for_order: bool
    after: int | None


class Reading(NamedTuple):
    """A document of a device, and the message that it is from."""

    document: bytes
    message: Message


class Refusal(NamedTuple):
    """A message that is appended as it came, for the dead letters."""

    message: Message
    reason: str


class Life(NamedTuple):
    """That a node or a device began or ended to be there."""

    device_id: str
    edge: str
    state: Literal["connected", "disconnected"]
    connection: str
    time_ms: int
    reason: str | None = None


class Gap(NamedTuple):
    """So many messages of an edge node did not come."""

    edge: str
    missing: int


@dataclass(slots=True)
class Outcome:
    """What messages came to, in order."""

    readings: list[Reading] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(slots=True)
class EdgeCounts:
    """Of one edge node since it was first heard of.

    Args:
        births, deaths: of the node, that took effect.
        gaps: stretches of messages that did not come within the reorder timeout.
        missing: messages in these.
        late: of these, came after all; and those that came after the birth that followed them.
        repeats: came again.
        resets: the sequence began anew without a birth.
        stale_deaths: were of a session before.
    """

    births: int = 0
    deaths: int = 0
    gaps: int = 0
    missing: int = 0
    late: int = 0
    repeats: int = 0
    resets: int = 0
    stale_deaths: int = 0


@dataclass(slots=True)
class Session:
    """What is stored with every change, as small as it is.

    Args:
        bd_seq: of the newest NBIRTH.
        seq: sequence number taken last; None before the first birth, and after a reset until the next.
        before: likewise of the session before, or of this one before its rebirth.
        online: whether it was born and has not died.
        born_ms, last_ms: timestamps of the newest NBIRTH, and of the message taken last.
        missing: sequence numbers of gaps that have not come round again.
        wants_rebirth: whether it should be asked for its births.
        next_number: of the next message that waits.
    """

    bd_seq: int | None = None
    seq: int | None = None
    before: int | None = None
    online: bool = False
    born_ms: int | None = None
    last_ms: int | None = None
    missing: list[int] = field(default_factory=list)
    wants_rebirth: bool = False
    next_number: int = 0
    counts: EdgeCounts = field(default_factory=EdgeCounts)
