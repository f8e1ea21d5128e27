"""Dead letters of delivery: what could not be read, and what could not be sent."""

from collections.abc import Mapping

from headrace.connectors.notifications.row import Row
from headrace.engine.log import TopicPartition
from headrace.engine.records import Record
from headrace.schemas import headers, topics
from headrace.schemas.text import shortened

#: Characters of an error that are kept.
MOST_ERROR = 500
#: Of a record in the outbox that was sent back from the dead letters: attempts made before.
ATTEMPTS = "attempts"
#: Of the same: for which of the notification's contacts alone, from 0.
NUMBER = "contact-number"
AGENT = b"delivery"


def unreadable(target: TopicPartition, offset: int, record: Record, error: ValueError) -> tuple[str, Record]:
    """Of a record of the outbox: topic and dead letter."""
    return _dead_letter(record, shortened(str(error), MOST_ERROR), _about(target.partition, offset))


def given_up(row: Row) -> tuple[str, Record]:
    """Of a row, with its error: topic and dead letter."""
    record = Record(row.notification.recipient.encode(), row.body(), 0, {})
    more = {ATTEMPTS: b"%d" % row.attempts, NUMBER: b"%d" % row.number}
    return _dead_letter(record, row.error or "", _about(row.partition, row.offset) | more)


def _about(partition: int, offset: int) -> dict[str, bytes]:
    return {
        headers.DLQ_TOPIC: topics.OUTBOX.encode(),
        headers.DLQ_PARTITION: b"%d" % partition,
        headers.DLQ_OFFSET: b"%d" % offset,
    }


def _dead_letter(record: Record, reason: str, more: Mapping[str, bytes]) -> tuple[str, Record]:
    kept = {headers.DLQ_REASON: reason.encode(), headers.DLQ_AGENT: AGENT, **more}
    return topics.NOTIFICATION_DEAD_LETTERS, record._replace(headers=kept)
