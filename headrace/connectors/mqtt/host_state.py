"""What a Sparkplug host application says of itself to edge nodes that wait for it (Sparkplug 3.0, 5.3 and 6.4.27)."""

import asyncio
from collections.abc import Iterable

import orjson
import structlog

from headrace.connectors.mqtt.codec.packets import Publish, Will
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.connection import MqttConnection
from headrace.engine.clock import Clock

log = structlog.get_logger(__name__)


class HostState:
    """Birth, death and will of a host: JSON on `spBv1.0/STATE/HOST_ID`, QoS 1, retained.

    The session with the broker is kept nonetheless, against tck-id-message-flow-phid-sparkplug-clean-session-311: with
    a clean one, what is published while we are away would be lost.

    Args:
        host_id: names the host; a level of a topic.
        clock: times.
    """

    def __init__(self, host_id: str, clock: Clock) -> None:
        self.topic = f"spBv1.0/STATE/{host_id}"
        self._clock = clock
        self._stamp = 0
        self._contradicted = asyncio.Event()

    def will(self) -> Will:
        """For a CONNECT now; the birth behind it has the same timestamp (tck-id-host-topic-phid-birth-payload)."""
        self._stamp = self._clock.now_ms()
        return Will(self.topic.encode(), self._payload(False), 1, True)

    def online(self) -> Publish:
        """The birth, as one who subscribes gets it from a listener; its timestamp is that of the first."""
        self._stamp = self._stamp or self._clock.now_ms()
        return Publish(self.topic.encode(), self._payload(True), retain=True)

    def look_at(self, messages: Iterable[Publish]) -> None:
        """Notice where somebody says that we are not there: a will of a connection before this one.

        What is retained comes with our subscription, before we have said that we are.
        """
        topic = self.topic.encode()
        for message in messages:
            if message.topic == topic and not message.retain and b"true" not in message.payload:
                self._contradicted.set()

    async def say_online(self, connection: MqttConnection) -> None:
        """Publish the birth, and again whenever it is contradicted, for as long as the connection lasts.

        Raises:
            Disconnected: it broke.
        """
        while True:
            self._contradicted.clear()
            reason = await connection.publish(self.topic.encode(), self._payload(True), retain=True)
            if reason >= Reason.UNSPECIFIED:
                log.warning("mqtt_host_state_refused", topic=self.topic, remedy="let this user publish there, retained")
            await self._contradicted.wait()

    async def say_offline(self, connection: MqttConnection) -> None:
        """Publish the death, before we go on purpose; no will is published then.

        Raises:
            Disconnected: the connection broke.
        """
        self._stamp = self._clock.now_ms()
        await connection.publish(self.topic.encode(), self._payload(False), retain=True)

    def _payload(self, online: bool) -> bytes:
        return orjson.dumps({"online": online, "timestamp": self._stamp})
