"""Records of a shard as messages for the log, in pieces that each come with the position behind them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from headrace.connectors.kinesis.aggregated import BadAggregate, UserRecord, unpack
from headrace.connectors.kinesis.position import Position
from headrace.connectors.kinesis.shards import Arrived, Read
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.connectors.payload_fields import PayloadFields
from headrace.schemas.topics import NO_DEVICE

log = structlog.get_logger(__name__)

#: Payload bytes appended at once.
MAX_BYTES = 4 << 20
_NOBODY = NO_DEVICE.encode()


@dataclass(slots=True)
class Messages:
    """Messages in order, as columns, and the position behind the last."""

    device_ids: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    sources: list[bytes] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)
    #: Why ingest must refuse a message, by its place.
    refused: dict[int, bytes] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    size: int = 0


class MessageMaker:
    """Makes messages of one shard's records. Aggregated ones are unpacked; a damaged one is refused as it came.

    Args:
        name: of stream and shard; each message says it comes from there.
        settings: where device id and alarm are, and how many messages make a piece.
    """

    def __init__(self, name: str, settings: KinesisSourceSettings) -> None:
        self._name = name.encode()
        self._by_field = bool(settings.device_field)
        looks = self._by_field or settings.alarm is not None
        self._fields = PayloadFields(settings.device_field, settings.alarm) if looks else None
        self._max_batch = settings.max_batch

    def pieces(self, read: Read, before: Position, until_ms: int) -> Iterator[Messages]:
        """The messages of a read.

        Args:
            before: where it began; what the log has of its first record is left out.
            until_ms: everything that had arrived by then is in `read`, or was before; ms since 1970 UTC.
        """
        piece, arrived_ms = Messages(), before.until_ms
        for record in read.records:
            users, damage = _unpacked(record)
            done = before.taken or 0 if record.sequence == before.sequence else 0
            arrived_ms = max(arrived_ms, record.at_ms)
            source = b"%s:%s" % (self._name, record.sequence.encode())
            for place in range(done, len(users)):
                self._add(piece, users[place], source, damage)
                if len(piece.payloads) >= self._max_batch or piece.size >= MAX_BYTES:
                    whole = place + 1 == len(users)
                    piece.position = Position(record.sequence, None if whole else place + 1, arrived_ms)
                    yield piece
                    piece = Messages()
        last = Position(read.records[-1].sequence) if read.records else before
        piece.position = last._replace(until_ms=max(arrived_ms, until_ms), ended=read.iterator is None)
        yield piece

    def _add(self, piece: Messages, user: UserRecord, source: bytes, damage: str) -> None:
        device_id = user.key
        if damage:
            piece.refused[len(piece.payloads)] = damage.encode()
        elif self._fields is not None:
            said, alarm = self._fields.read(user.data)
            device_id = said or _NOBODY if self._by_field else user.key
            if alarm and device_id != _NOBODY:
                piece.alarms.append(len(piece.payloads))
        piece.device_ids.append(device_id or _NOBODY)
        piece.payloads.append(user.data)
        piece.sources.append(source)
        piece.size += len(user.data)


def _unpacked(record: Arrived) -> tuple[Sequence[UserRecord], str]:
    """The messages of a record, and what is wrong with it; empty if nothing is."""
    whole = [UserRecord(record.key, record.data)]
    try:
        users = unpack(record.data)
    except BadAggregate as error:
        log.warning("kinesis_aggregate_damaged", sequence=record.sequence, reason=str(error))
        return whole, f"a record of the Kinesis Producer Library that is damaged: {error}"
    return whole if users is None else users, ""
