"""What the headers of records in public topics hold; values are bytes, all of them text but for `MQTT_PROPERTIES`."""

from collections.abc import Mapping
from typing import NamedTuple

from headrace.schemas import topics

DLQ_REASON = "dlq-reason"
DLQ_AGENT = "dlq-agent"
DLQ_TOPIC = "dlq-topic"
DLQ_PARTITION = "dlq-partition"
DLQ_OFFSET = "dlq-offset"
DLQ_SCHEMA_VERSION = "dlq-schema-version"

_NUMBER = "^[0-9]+$"


class Header(NamedTuple):
    """One header.

    Args:
        description: what it holds.
        always: whether every record of the topic has it.
        pattern: of its text; None for any.
    """

    description: str
    always: bool = False
    pattern: str | None = None


MESSAGE_ID = Header("id given to the message when it was accepted: a UUID, version 7.", True)
#: Of a message as it was accepted.
RAW: Mapping[str, Header] = {
    topics.MESSAGE_ID: MESSAGE_ID,
    topics.PROFILE: Header("name of the topic profile that took it; empty if none did.", True),
    topics.DEVICE_TYPE: Header("name of the device type that it is read with, unless the registry says another.", True),
    topics.SOURCE: Header("where the device sent it: MQTT topic, HTTP path, or file and line.", True),
    topics.PAYLOAD_BYTES: Header(
        "how many bytes the payload had, where only its beginning is kept: it was larger than the log takes.",
        pattern=_NUMBER,
    ),
    topics.REFUSED: Header("why the format of its profile could not unpack it; it is whole then, as it came."),
    topics.SEQUENCE: Header(
        "its sequence number, how many numbers there are, and its event time in ms since 1970 UTC where that is known; "
        "`again`, where it may have been delivered before; behind a question mark, why what stands there is none.",
        pattern=r"^([0-9]+ [0-9]+( -?[0-9]+)?( again)?|\? .+)$",
    ),
    topics.REDRIVEN_FROM: Header("of a dead letter that was sent back: its id."),
    topics.REDRIVEN_AT: Header(
        "of a dead letter that was sent back: as of when the registry is asked about it, ms since 1970 UTC.",
        pattern=_NUMBER,
    ),
}
#: Of a message that is no reading.
DEVICE_EVENT: Mapping[str, Header] = {
    topics.MESSAGE_ID: MESSAGE_ID,
    topics.EVENT: Header("what it is about: `join`, `txack`, `attributes`.", True),
    topics.PROFILE: RAW[topics.PROFILE]._replace(description="name of the topic profile that took it."),
    topics.SOURCE: RAW[topics.SOURCE],
    topics.PAYLOAD_BYTES: RAW[topics.PAYLOAD_BYTES],
}
READING: Mapping[str, Header] = {
    topics.DEVICE_TYPE: Header("device type that the message was appended with, where the registry says another."),
}
#: Of what one reading caused.
CAUSED: Mapping[str, Header] = {
    topics.MESSAGE_ID: Header("id of the message that caused it; empty or left out if none did."),
}
EVENT: Mapping[str, Header] = {
    topics.CONTENT_TYPE: Header("media type of the value, `application/cloudevents+json; charset=UTF-8`.", True),
    **CAUSED,
}
DEAD_LETTER: Mapping[str, Header] = {
    DLQ_REASON: Header("why it is here, for a person; 500 characters at most.", True),
    DLQ_AGENT: Header("agent or sink that put it here.", True),
    DLQ_TOPIC: Header("topic that it was in.", True),
    DLQ_PARTITION: Header("partition of that topic.", True, _NUMBER),
    DLQ_OFFSET: Header("offset in that partition.", True, _NUMBER),
    DLQ_SCHEMA_VERSION: Header("version of the reading schema that it was judged by.", True, _NUMBER),
    **{name: each._replace(always=False) for name, each in {**EVENT, **RAW}.items()},
}
COMMAND: Mapping[str, Header] = {
    topics.MESSAGE_ID: Header("id given to the command when it was accepted."),
    topics.SOURCE: Header("MQTT topic that the device gets it on.", True),
    topics.MQTT_QOS: Header("its QoS; 1 if left out.", pattern="^[012]$"),
    topics.MQTT_PROPERTIES: Header("MQTT 5 properties that go with it, as on the wire."),
    topics.MQTT_CLIENT_ID: Header("MQTT client id of who sent it, if that was a client."),
}
