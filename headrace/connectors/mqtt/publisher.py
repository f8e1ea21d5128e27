"""Publishes device messages to an MQTT broker, for the simulated fleet and for `replay --via mqtt`."""

import asyncio
import contextlib
import math
import socket
from types import TracebackType
from typing import Self

import aiomqtt

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.engine.errors import Disconnected

#: Messages without PUBACK at a time; 50 and 100 were slower on Mosquitto and amqtt.
WINDOW = 20


class MqttPublisher:
    """Publishes in order, as fast as the broker acknowledges. An async context manager.

    aiomqtt costs 0.1-0.2 ms a message, less than an embedded broker does: it suffices here, but not in `MqttSource`.

    Args:
        address: the broker.
        client_id: a clean session's name; made up if left out.
        window: messages without PUBACK before `publish` waits, count.
    """

    def __init__(self, address: BrokerAddress, *, client_id: str | None = None, window: int = WINDOW) -> None:
        self._address = address
        self._client = aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            tls_context=address.tls,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
            max_inflight_messages=window,
            # Or every small packet waits for TCP's acknowledgement of the last one, up to 40 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._client.pending_calls_threshold = window
        self._window = window
        self._slots = asyncio.Semaphore(window)
        self._sending: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._failure: Disconnected | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Disconnected: no broker there, or it refuses us.
        """
        try:
            await self._client.__aenter__()
        except aiomqtt.MqttError as error:
            raise Disconnected(f"cannot publish to {self._address.host}:{self._address.port}: {error}") from error
        await self._group.__aenter__()
        self._watcher = self._group.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what is not acknowledged by now may be lost, so `drain` first."""
        for task in (self._watcher, *self._sending):
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.__aexit__(kind, error, trace)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand over one message; waits while the window is full.

        Raises:
            Disconnected: the broker went away; messages without PUBACK may be lost.
        """
        await self._slots.acquire()
        if self._failure is not None:
            self._slots.release()
            raise Disconnected(str(self._failure)) from self._failure
        task = self._group.create_task(self._send(topic, payload, qos, retain))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    async def drain(self) -> None:
        """Wait until the broker has acknowledged everything.

        Raises:
            Disconnected: it went away before that.
        """
        if self._sending:
            await asyncio.wait(set(self._sending))
        if self._failure is not None:
            raise Disconnected(str(self._failure)) from self._failure

    async def _send(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        try:
            await self._client.publish(topic, payload, qos=qos, retain=retain, timeout=math.inf)
        except aiomqtt.MqttError as error:
            self._fail(error)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._slots.release()

    async def _watch(self) -> None:
        """Notice a lost connection, which leaves aiomqtt's own publish calls waiting for ever."""
        try:
            async for _ in self._client.messages:
                pass
        except aiomqtt.MqttError as error:
            self._fail(error)

    def _fail(self, error: aiomqtt.MqttError) -> None:
        self._failure = self._failure or Disconnected(f"the MQTT broker went away while publishing: {error}")
        for task in self._sending:
            task.cancel()
