"""What a message is as a record of Kinesis."""

import base64
import hashlib
from typing import NamedTuple

import orjson

#: Of one record, data and partition key, bytes. A stream may be set to take more; this is what every one takes.
MAX_RECORD_BYTES = 1 << 20
#: Of a partition key, characters.
MAX_KEY = 256
#: Bytes that are kept of a payload that is larger.
KEPT = 64 << 10


class Entry(NamedTuple):
    """One record.

    Args:
        size: bytes that Kinesis counts, data and key.
    """

    key: str
    data: bytes
    size: int


def partition_key(device_id: bytes) -> str:
    """The device id; of one longer than Kinesis takes, a hash, the same each time.

    >>> partition_key(b"roof-7"), partition_key(b"x" * 300)[:12]
    ('roof-7', 'sha256:98365')
    """
    key = device_id.decode(errors="replace")
    # Characters are UTF-16 units there; a device id of so few bytes has no more of them.
    if len(device_id) > MAX_KEY and len(key.encode("utf-16-le")) > 2 * MAX_KEY:
        return f"sha256:{hashlib.sha256(device_id).hexdigest()}"
    return key


def entry(device_id: bytes, payload: bytes, source: bytes) -> Entry:
    """The record of a message: the payload as it was sent, or what `oversized` says of it."""
    key = partition_key(device_id)
    size = len(key) + len(payload) if key.isascii() else len(key.encode()) + len(payload)
    if size <= MAX_RECORD_BYTES:
        return Entry(key, payload, size)
    data = oversized(device_id, payload, source)
    return Entry(key, data, len(key.encode()) + len(data))


def oversized(device_id: bytes, payload: bytes, source: bytes) -> bytes:
    """What stands in the stream for a payload that it does not take: JSON with one key, `headrace_oversized`.

    Cut off alone a payload could pass for a whole one, and a record has no headers to say so. Refused, the device would
    send it for ever, with everything of its behind it.
    """
    return orjson.dumps(
        {
            "headrace_oversized": {
                "device_id": device_id[:KEPT].decode(errors="replace"),
                "topic": source[:KEPT].decode(errors="replace"),
                "payload_bytes": len(payload),
                "sha256": hashlib.sha256(payload).hexdigest(),
                "beginning": base64.b64encode(payload[:KEPT]).decode(),
            }
        }
    )
