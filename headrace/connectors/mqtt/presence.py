"""Records of who is connected: written beside the messages, in batches of their own."""

import base64
import itertools
import os
from collections.abc import Sequence

from headrace.connectors.mqtt.codec import packets
from headrace.connectors.mqtt.inflow import Inflow
from headrace.engine.clock import Clock
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.presence import Presence, Will

#: Events that are appended at once, and how long they wait for each other, seconds.
MAX_BATCH, LINGER = 2_000, 0.05
#: Events that may wait; no client is let in while there are more.
MAX_WAITING = 20_000


class PresenceLog:
    """Appends presence events to `devices.presence`, in the order in which things happened per device.

    Args:
        log: where to.
        clock: gives event and append times.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._partitioner = Partitioner(log.partitions(topics.PRESENCE))
        self._run_id, self._numbers = os.urandom(6).hex(), itertools.count(1)
        self.queue: Inflow[Presence] = Inflow(
            self._append, lambda: None, clock, linger=LINGER, max_batch=MAX_BATCH, max_bytes=MAX_WAITING
        )

    def connection_id(self) -> str:
        """A new one."""
        return f"{self._run_id}-{next(self._numbers)}"

    def connected(self, device_id: str, client_id: str, connection_id: str) -> None:
        """A device came."""
        self._put("connected", device_id, client_id, connection_id)

    def disconnected(self, device_id: str, client_id: str, connection_id: str, reason: str) -> None:
        """A device went."""
        self._put("disconnected", device_id, client_id, connection_id, reason=reason)

    def will(self, device_id: str, client_id: str, connection_id: str, will: packets.Will) -> None:
        """A device's will is due."""
        self._put("will", device_id, client_id, connection_id, will=_shown(will))

    def _put(self, state: str, device_id: str, client_id: str, connection_id: str, **more: object) -> None:
        known = {"device_id": device_id, "client_id": client_id, "connection_id": connection_id, "state": state}
        self.queue.put(Presence.model_validate({**known, "time": self._clock.now_ms(), **more}), 1)

    async def _append(self, events: Sequence[Presence]) -> None:
        keys = [event.device_id.encode() for event in events]
        values = [event.model_dump_json(exclude_none=True).encode() for event in events]
        now_ms = self._clock.now_ms()
        appends = [
            Append(
                TopicPartition(topics.PRESENCE, partition),
                Records([keys[row] for row in rows], [values[row] for row in rows], [now_ms] * len(rows)),
            )
            for partition, rows in self._partitioner.split(keys).items()
        ]
        await self._log.commit(Transaction(appends))

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topic it needs."""
        return [TopicSpec(topics.PRESENCE, partitions)]


def _shown(will: packets.Will) -> Will:
    topic = will.topic.decode()
    try:
        return Will(topic=topic, payload=will.payload.decode())
    except UnicodeDecodeError:
        return Will(topic=topic, payload_base64=base64.b64encode(will.payload).decode())
