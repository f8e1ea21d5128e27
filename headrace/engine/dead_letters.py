"""What goes to `telemetry.dlq`: the record's own bytes, with why and where from as headers."""

import logging
from collections.abc import Sequence

import orjson
import structlog

from headrace.engine.batch import Batch, Send
from headrace.engine.intake import tally
from headrace.engine.log import Fetched, Tally
from headrace.engine.records import Header, Records
from headrace.schemas import headers as header_names
from headrace.schemas import topics

logger = structlog.get_logger(__name__)

#: Headers of a dead letter, beside those of the record itself; `headrace.schemas.headers` says what they hold.
REASON = header_names.DLQ_REASON
AGENT = header_names.DLQ_AGENT
ORIGIN_TOPIC = header_names.DLQ_TOPIC
ORIGIN_PARTITION = header_names.DLQ_PARTITION
ORIGIN_OFFSET = header_names.DLQ_OFFSET
SCHEMA_VERSION = header_names.DLQ_SCHEMA_VERSION
#: Longest reason kept, characters; a reason may quote the payload.
MAX_REASON = 500


def dead_letters(batch: Batch, agent: str) -> list[Send]:
    """The dead letters that `agent` staged on `batch`, ready to send."""
    indices = [index for index, _ in batch.dead_letters]
    reasons = [reason for _, reason in batch.dead_letters]
    offsets = [batch.offset(index) for index in indices]
    counted = batch.topic == topics.RAW
    return [
        dead_letter_records(batch.topic, batch.partition, offsets, batch.records.take(indices), reasons, agent, counted)
    ]


def dead_letter(fetched: Fetched, index: int, reason: str, agent: str) -> Send:
    """Record `index` of `fetched` as a dead letter of a sink: it will not be stored, so the ledger counts it."""
    return dead_letter_records(
        fetched.target.topic,
        fetched.target.partition,
        [fetched.offset(index)],
        fetched.records.take([index]),
        [reason],
        agent,
        counted=fetched.target.topic == topics.READINGS,
    )


def dead_letter_records(
    topic: str,
    partition: int,
    offsets: Sequence[int],
    records: Records,
    reasons: Sequence[str],
    agent: str,
    counted: bool,
) -> Send:
    """Records for `telemetry.dlq`.

    Args:
        offsets, reasons: one per record.
        counted: whether the message ends here, so that the ledger counts it as dead-lettered. A reading on which one
            agent failed is still stored, and not counted.
    """
    headers: dict[str, Header] = {
        **records.headers,
        REASON: [reason[:MAX_REASON].encode(errors="backslashreplace") for reason in reasons],
        AGENT: agent.encode(),
        ORIGIN_TOPIC: topic.encode(),
        ORIGIN_PARTITION: str(partition).encode(),
        ORIGIN_OFFSET: [str(offset).encode() for offset in offsets],
        SCHEMA_VERSION: b"1",
    }
    if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        for offset, reason, message_id in zip(offsets, reasons, records.header(topics.MESSAGE_ID), strict=True):
            logger.debug(
                "record dead-lettered",
                message_id=(message_id or b"").decode(errors="replace"),
                agent=agent,
                topic=topic,
                partition=partition,
                offset=offset,
                reason=reason[:MAX_REASON],
            )
    tallies: dict[Tally, int] = {}
    if counted:
        for stamp, device_type in zip(records.timestamps, _device_types(topic, records), strict=True):
            for key, count in tally([stamp], device_type).items():
                tallies[key] = tallies.get(key, 0) + count
    return Send(topics.DEAD_LETTERS, Records(records.keys, records.values, records.timestamps, headers), None, tallies)


def _device_types(topic: str, records: Records) -> list[str]:
    """Device type per record as it was accepted: in a header, or in the value of a reading that has none."""
    names = records.header(topics.DEVICE_TYPE)
    if topic == topics.READINGS:
        pairs = zip(names, records.values, strict=True)
        return [
            name.decode(errors="replace") if name else said("device_type", value) or "unknown" for name, value in pairs
        ]
    return ["unknown" if name is None else name.decode(errors="replace") for name in names]


def said(field: str, value: bytes | None) -> str | None:
    """A text field of a JSON document, if it is one and has it."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    text = document.get(field) if isinstance(document, dict) else None
    return text if isinstance(text, str) else None
