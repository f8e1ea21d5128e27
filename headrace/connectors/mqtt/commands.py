"""Commands to devices: into the log, and from there to those who listen."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from headrace.connectors.mqtt.codec.cursor import Cursor, decoded
from headrace.connectors.mqtt.codec.packets import NONE, Kind, Properties, Publish
from headrace.connectors.mqtt.codec.properties import read_properties, write_properties
from headrace.connectors.mqtt.codec.reasons import BadPacket
from headrace.connectors.mqtt.codec.topic import check_topic
from headrace.engine.clock import Clock
from headrace.engine.intake import MessageIds
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Header, Records
from headrace.schemas import topics

log = structlog.get_logger(__name__)

#: Properties of a message that its receivers get as they are (5: 3.3.2.3).
FORWARDED = (
    "payload_format_indicator", "message_expiry_interval", "content_type", "response_topic", "correlation_data",
    "user_property",
)  # fmt: skip
LONGEST_TOPIC = 65_535
#: Seconds that a wait for commands lasts before it looks around.
POLL = 1.0
MAX_READ = 500


class Command(NamedTuple):
    """A command of the log.

    Args:
        message: as it was published.
        client_id: of who published it; None if that was no client.
        expires_ms: when it is of no use any more, ms since 1970 UTC; None for never.
    """

    message: Publish
    client_id: str | None = None
    expires_ms: int | None = None


class Commands:
    """The topic `devices.commands`. Whoever appends to it, in any process, reaches the devices that are connected.

    Args:
        log: where they are.
        clock: gives append times.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._partitioner = Partitioner(log.partitions(topics.COMMANDS))
        self._message_ids = MessageIds(clock)

    async def append(self, devices: Sequence[str], messages: Sequence[Publish], client_ids: Sequence[str]) -> None:
        """Append commands, with the client id of who sent each; when this returns they are in the log for good.

        Raises:
            LogError: nothing was appended.
        """
        keys = [device.encode() for device in devices]
        ids, now_ms = self._message_ids.take(len(messages)), self._clock.now_ms()
        appends = []
        for partition, rows in self._partitioner.split(keys).items():
            headers: dict[str, Header] = {
                topics.MESSAGE_ID: [ids[row] for row in rows],
                topics.SOURCE: [messages[row].topic for row in rows],
                topics.MQTT_QOS: [b"%d" % messages[row].qos for row in rows],
                topics.MQTT_PROPERTIES: [_forwarded(messages[row].properties) for row in rows],
                topics.MQTT_CLIENT_ID: [client_ids[row].encode() for row in rows],
            }
            payloads: list[bytes | None] = [messages[row].payload for row in rows]
            records = Records([keys[row] for row in rows], payloads, [now_ms] * len(rows), headers)
            appends.append(Append(TopicPartition(topics.COMMANDS, partition), records))
        await self._log.commit(Transaction(appends))

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the commands that come from now on will begin."""
        return await self._log.end_offsets(topics.COMMANDS)

    async def follow(self, positions: dict[TopicPartition, int], deliver: Callable[[Command], None]) -> None:
        """Hand over each command from `positions` on, for ever."""
        async with reading(self._log) as reader:
            while True:
                if not await reader.wait(positions, POLL):
                    continue
                for target in list(positions):
                    fetched = await reader.read(target, positions[target], MAX_READ)
                    if fetched is None:
                        continue
                    positions[target] = fetched.next_offset
                    for command in _read(fetched.records):
                        deliver(command)

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topic it needs."""
        return [TopicSpec(topics.COMMANDS, partitions)]


def _forwarded(properties: Properties) -> bytes | None:
    kept = {name: properties[name] for name in FORWARDED if name in properties}
    return write_properties(kept) if kept else None


def _read(records: Records) -> Iterator[Command]:
    """The commands in records of any process; one that is none is skipped, and logged."""
    columns = [records.header(name) for name in (topics.SOURCE, topics.MQTT_QOS, topics.MQTT_PROPERTIES)]
    senders = records.header(topics.MQTT_CLIENT_ID)
    rows = zip(*columns, senders, records.values, records.timestamps, strict=True)
    for topic, qos, properties, sender, payload, appended_ms in rows:
        if not topic or payload is None or len(topic) > LONGEST_TOPIC:
            continue
        try:
            check_topic(topic)
            client_id = decoded(sender) if sender else None
            given = read_properties(Cursor(properties), Kind.PUBLISH) if properties else NONE
        except BadPacket as error:
            log.warning("mqtt_command_unreadable", detail=str(error))
            continue
        expiry = given.get("message_expiry_interval")
        message = Publish(topic, payload, qos=int(qos) if qos in (b"0", b"1", b"2") else 1, properties=given)
        yield Command(message, client_id, None if expiry is None else appended_ms + 1000 * expiry)
