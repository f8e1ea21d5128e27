"""Proves that an MQTT broker delivers: a message to ourselves, after each connect and when it has been quiet."""

import asyncio
import secrets
from collections.abc import Iterable

import structlog

from headrace.connectors.mqtt.codec.packets import Publish
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.connection import MqttConnection
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected

log = structlog.get_logger(__name__)

#: Seconds for a probe to come back while nothing else comes.
PATIENCE = 5.0
#: Probes that do not come back, before one ever did, after which the broker is taken not to let them through.
TRIES = 2
#: PUBACK of MQTT 5: nobody subscribes to this topic.
NOBODY = Reason.NO_MATCHING_SUBSCRIBERS
FAILURE = 0x80


class ProbeLost(Disconnected):
    """What was published did not come back, though connection and subscription look sound."""


class Probe:
    """Probes one session.

    Until a probe has come back once, it may be the broker's access control that keeps them: after `TRIES` it is said
    once, and there are no more.

    Args:
        topic: private to this client.
        interval: seconds of silence after which to look again.
        clock: for waiting.
    """

    def __init__(self, topic: str, interval: float, clock: Clock) -> None:
        self.topic = topic.encode()
        self._clock = clock
        self._interval = interval
        self._waiting = b""
        self._back = asyncio.Event()
        self._proven = False
        self._lost = 0
        #: Whether it has been given up.
        self.hopeless = False

    def take(self, messages: Iterable[Publish]) -> list[Publish]:
        """The messages that are no probes; a probe among them is noted."""
        rest = []
        for message in messages:
            if message.topic != self.topic:
                rest.append(message)
            elif message.payload == self._waiting:
                self._back.set()
        return rest

    def give_up(self, why: str) -> None:
        """Probe no more, and say so."""
        self.hopeless = True
        log.warning(
            "mqtt_probe_given_up",
            topic=self.topic.decode(),
            reason=why,
            remedy='let this user publish and subscribe there, or set [mqtt] probe = ""',
        )

    async def prove(self, connection: MqttConnection) -> None:
        """Return when a message has come back, or when probing is hopeless.

        Raises:
            ProbeLost: none came back; connect again.
            Disconnected: the connection broke.
        """
        sent_at = asyncio.get_running_loop().time()
        coming = asyncio.create_task(self._send(connection))
        try:
            # Behind other messages, or while we read nothing ourselves, a probe may take its time.
            while not coming.done() and (left := _left(connection, sent_at, PATIENCE)) > 0:
                await asyncio.wait([coming], timeout=left)
        finally:
            coming.cancel()
        reason = coming.result() if coming.done() else NOBODY
        if reason >= FAILURE:
            self.give_up("the broker does not let us publish there")
        elif reason == NOBODY:
            self._note_lost()
        else:
            self._proven, self._lost = True, 0

    async def wait_quiet(self, connection: MqttConnection) -> None:
        """Return when nothing has come for the interval, while we read."""
        while (left := _left(connection, 0.0, self._interval)) > 0:
            await self._clock.sleep(left)

    async def _send(self, connection: MqttConnection) -> int:
        """Publish, and wait until it comes back, unless the broker says why it will not."""
        self._waiting = secrets.token_hex(8).encode()
        self._back.clear()
        reason = await connection.publish(self.topic, self._waiting)
        if reason < FAILURE and reason != NOBODY:
            await self._back.wait()
        return reason

    def _note_lost(self) -> None:
        self._lost += 1
        if not self._proven and self._lost >= TRIES:
            self.give_up("no message came back; the broker may not let us publish or subscribe there")
            return
        raise ProbeLost(f"a message that we published to {self.topic.decode()} did not come back in {PATIENCE:g} s")


def _left(connection: MqttConnection, since: float, patience: float) -> float:
    if connection.paused:
        return patience
    return max(since, connection.message_at) + patience - asyncio.get_running_loop().time()
