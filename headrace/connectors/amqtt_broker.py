"""amqtt as a broker process of its own. A script: its settings are the first line of standard input, as JSON.

Standard input is a pipe from the parent, and its end means that the parent is gone. Nothing of headrace is imported.
"""

import asyncio
import hmac
import json
import logging
import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from amqtt.broker import Broker
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.protocol.handler import ProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import OUTGOING

#: Seconds for a client's old connection to end by itself, with the PUBACKs still under way, before it is ended.
PATIENCE = 1.0

_incoming_flow = ProtocolHandler._handle_qos1_message_flow


class TokenAuth(BaseAuthPlugin):  # type: ignore[misc]  # amqtt ships no types
    """Lets in who has the password. Of amqtt's own plugins one looks at no password and one spends 50 ms of hashing."""

    @dataclass
    class Config:
        """What the plugin manager hands over."""

        username: str
        password: str

    async def authenticate(self, *, session: Any) -> bool:
        """Whether the client gave the broker's user and password."""
        given = f"{session.username}:{session.password}".encode()
        return hmac.compare_digest(given, f"{self.config.username}:{self.config.password}".encode())


async def keep_until_acknowledged(self: Any, message: Any) -> None:
    """QoS 1 delivery that keeps what is not acknowledged in the session, to be sent again (MQTT 3.1.1, 4.4).

    amqtt 0.12 drops an outgoing message for good when its PUBACK takes over 5 s or its client disconnects;
    see test_unacknowledged_messages_come_again.
    """
    if message.direction != OUTGOING:
        await _incoming_flow(self, message)
        return
    session = self.session
    session.inflight_out[message.packet_id] = message
    packet = message.build_publish_packet(dup=message.publish_packet is not None)
    waiter = self._puback_waiters[message.packet_id] = asyncio.get_running_loop().create_future()
    message.publish_packet = packet
    try:
        await self._send_packet(packet)
        if self._reader_stopped.is_set():
            return  # nobody is left to read the PUBACK
        message.puback_packet = await waiter
    finally:
        if self._puback_waiters.get(message.packet_id) is waiter:
            del self._puback_waiters[message.packet_id]
    session.inflight_out.pop(message.packet_id, None)


async def start_seeing_the_end(self: Any) -> None:
    """Start a connection so that its end is seen while the redelivery in `start` still waits; amqtt 0.12 misses it."""
    self._disconnect_waiter = asyncio.get_running_loop().create_future()
    await ProtocolHandler.start(self)


class OneByOneBroker(Broker):  # type: ignore[misc]  # amqtt ships no types
    """A broker in which a client's new connection waits until its old one has ended.

    amqtt 0.12 lets them overlap, and the end of the old one then marks the session as disconnected: the new connection
    gets nothing until it connects again; see test_stopping_finishes_what_came_and_is_quick.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def _handle_client_session(self, reader: Any, writer: Any, session: Any, *rest: Any) -> None:
        turn, known = self._turns[session.client_id], self._sessions.get(session.client_id)
        try:
            await asyncio.wait_for(turn.acquire(), PATIENCE)
        except TimeoutError:
            if known is not None:
                await known[1].handle_connection_closed()
                await known[1].stop()
            await turn.acquire()
        try:
            await super()._handle_client_session(reader, writer, session, *rest)
        finally:
            turn.release()


async def serve(settings: dict[str, Any]) -> None:
    """Listen until the parent closes the pipe."""
    ProtocolHandler._handle_qos1_message_flow = keep_until_acknowledged
    BrokerProtocolHandler.start = start_seeing_the_end
    credentials = {"username": settings["username"], "password": settings["password"]}
    broker = OneByOneBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{settings['host']}:{settings['port']}"}},
            "plugins": {"__main__.TokenAuth": credentials},
        }
    )
    await broker.start()
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


def main() -> None:
    """Entry of the process."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(json.loads(sys.stdin.readline())))


if __name__ == "__main__":
    main()
