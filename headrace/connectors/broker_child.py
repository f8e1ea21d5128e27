"""The embedded broker's own process: Mosquitto in its place, or amqtt. Run as a script by `headrace.connectors.broker`.

Nothing of headrace is imported here, so that it starts fast and carries nothing of the parent. Its standard input is a pipe
from the parent: the first line is JSON, and its end means that the parent is gone.
"""

import asyncio
import ctypes
import hmac
import json
import logging
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have Linux end this process when its parent ends, however that happens; elsewhere the closed pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent process has already gone")


def replace_by_mosquitto(settings: dict[str, Any]) -> None:
    """Become Mosquitto; the parent-death signal survives the exec. Standard input has served its purpose."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(settings["mosquitto"], [settings["mosquitto"], "-c", settings["configuration"]])


async def serve_amqtt(settings: dict[str, Any]) -> None:
    """Run amqtt until the process is ended."""
    from amqtt.broker import Broker
    from amqtt.mqtt.protocol.handler import ProtocolHandler
    from amqtt.plugins.base import BaseAuthPlugin
    from amqtt.session import OUTGOING

    class TokenAuth(BaseAuthPlugin):
        """Lets in who has the password; amqtt's own plugins look at no password, or hash one for 50 ms per client."""

        async def authenticate(self, *, session: Any) -> bool:
            given = f"{session.username}:{session.password}".encode()
            return hmac.compare_digest(given, f"{settings['username']}:{settings['password']}".encode())

    acknowledged_flow = ProtocolHandler._handle_qos1_message_flow

    async def keep_until_acknowledged(self: Any, message: Any) -> None:
        # amqtt 0.12 drops an outgoing message for good when its PUBACK takes longer than 5 s or its client disconnects.
        # Kept in the session it is sent again, as MQTT 4.4 asks; see test_unacknowledged_message_comes_again.
        if message.direction != OUTGOING:
            await acknowledged_flow(self, message)
            return
        in_flight = self.session.inflight_out
        in_flight[message.packet_id] = message
        packet = message.build_publish_packet(dup=message.publish_packet is not None)
        waiter = self._puback_waiters[message.packet_id] = asyncio.get_running_loop().create_future()
        message.publish_packet = packet
        try:
            await self._send_packet(packet)
            message.puback_packet = await waiter
        finally:
            self._puback_waiters.pop(message.packet_id, None)
        in_flight.pop(message.packet_id, None)

    ProtocolHandler._handle_qos1_message_flow = keep_until_acknowledged
    sys.modules["headrace_broker_auth"] = sys.modules["__main__"]
    vars(sys.modules["__main__"])["TokenAuth"] = TokenAuth
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{settings['host']}:{settings['port']}"}},
            "plugins": {"headrace_broker_auth.TokenAuth": {}},
        }
    )
    await broker.start()
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


def main() -> None:
    """Entry of the child process; the only argument is the parent's process id."""
    end_with_parent(int(sys.argv[1]))
    settings = json.loads(sys.stdin.readline())
    if "mosquitto" in settings:
        replace_by_mosquitto(settings)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve_amqtt(settings))


if __name__ == "__main__":
    main()
