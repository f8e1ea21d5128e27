"""Who is let in by a listener, and what a CONNACK says."""

import secrets
from typing import Any

from headrace.connectors.mqtt.access import Identity
from headrace.connectors.mqtt.codec.packets import V3, V5, Connack, Connect, Will
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.listener_config import ListenerConfig

#: Beside its payload a packet has a topic of up to 64 KiB, and properties.
LARGEST_HEADER = 128 * 1024
#: Aliases that a client may give to topics.
TOPIC_ALIAS_MAXIMUM = 16
#: A client may be silent for its keep-alive and half of it (3.1.2.10).
KEEP_ALIVE_SHARE = 1.5
MAX_CLIENT_ID = 256


class Reception:
    """Judges those who connect. Everything here raises `BadPacket` with the reason for the CONNACK.

    Args:
        config: of the listener.
        clients: that there is room for, count.
    """

    def __init__(self, config: ListenerConfig, clients: int) -> None:
        self._config = config
        self._clients = clients
        self._tokens = config.connect_rate
        #: Bytes that a packet may have behind its length.
        self.largest_packet = config.max_payload_bytes + LARGEST_HEADER

    def refill(self, seconds: float) -> None:
        """So much time has passed: more clients may come."""
        rate = self._config.connect_rate
        self._tokens = min(rate, self._tokens + rate * seconds)

    def check(self, connect: Connect, connected: int) -> None:
        """Whether there is room, and whether such a client is taken; `connected` are there, this one included."""
        if connected > self._clients:
            raise BadPacket(Reason.SERVER_BUSY, f"there are {self._clients} clients already")
        if self._tokens < 1:
            raise BadPacket(Reason.CONNECTION_RATE_EXCEEDED, "too many clients connect at once; come again later")
        if "authentication_method" in connect.properties:
            raise BadPacket(Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported")
        if len(connect.client_id) > MAX_CLIENT_ID:
            raise BadPacket(Reason.CLIENT_IDENTIFIER_NOT_VALID, f"a client id of over {MAX_CLIENT_ID} characters")
        self._tokens -= 1

    @staticmethod
    def client_id(connect: Connect) -> str:
        """The client's own, or one that is made up."""
        if connect.client_id:
            return connect.client_id
        if connect.version == V3 and not connect.clean_start:
            raise BadPacket(Reason.CLIENT_IDENTIFIER_NOT_VALID, "a session that is kept needs a client id")
        return f"auto-{secrets.token_hex(8)}"

    def check_will(self, will: Will | None, version: int, identity: Identity) -> None:
        """Whether the client could publish its will itself."""
        if will is None:
            return
        if will.retain and version == V5:
            raise BadPacket(Reason.RETAIN_NOT_SUPPORTED, "this is an ingest listener: it keeps no retained messages")
        if not identity.may_publish(will.topic.decode()):
            raise BadPacket(Reason.NOT_AUTHORIZED, f"{identity.name} may not leave a will there")
        if len(will.payload) > self._config.max_payload_bytes:
            raise BadPacket(Reason.PACKET_TOO_LARGE, f"a will of over {self._config.max_payload_bytes} bytes")

    def silence(self, connect: Connect) -> float:
        """Seconds that the client may say nothing; one of 3.1.1 cannot be told another keep-alive than its own."""
        most = self._config.max_keep_alive
        return KEEP_ALIVE_SHARE * (self._keep_alive(connect) if connect.version == V5 else connect.keep_alive or most)

    def connack(self, connect: Connect, client_id: str, present: bool, expiry: float) -> Connack:
        """What a client is told that is let in.

        Args:
            client_id: of its session.
            present: whether the session was there before.
            expiry: seconds that it outlives the connection.
        """
        if connect.version != V5:
            return Connack(present)
        properties: dict[str, Any] = {
            "receive_maximum": self._config.max_inflight,
            "retain_available": 0,
            "maximum_packet_size": self.largest_packet,
            "topic_alias_maximum": TOPIC_ALIAS_MAXIMUM,
            "subscription_identifier_available": 0,
            "shared_subscription_available": 0,
        }
        keep_alive = self._keep_alive(connect)
        if not connect.client_id:
            properties["assigned_client_identifier"] = client_id
        if keep_alive != connect.keep_alive:
            properties["server_keep_alive"] = keep_alive
        if int(expiry) != connect.properties.get("session_expiry_interval", 0):
            properties["session_expiry_interval"] = int(expiry)
        return Connack(present, properties=properties)

    def _keep_alive(self, connect: Connect) -> int:
        most = self._config.max_keep_alive
        return min(connect.keep_alive or most, most)
