"""What the listener remembers of a client, while it is connected and for as long after that as it asked for."""

from typing import TYPE_CHECKING

from headrace.connectors.mqtt.codec.packets import Filter, Publish, Will
from headrace.connectors.mqtt.outbox import Outbox

if TYPE_CHECKING:
    from headrace.connectors.mqtt.server_connection import ServerConnection


class Session:
    """State of one client id (3.1.1: 3.1.2.4; 5: 4.1).

    Args:
        client_id: of the client.
        owner: name of who may continue it.
    """

    __slots__ = (
        "client_id", "connection", "ends_at", "expiry", "in_doubt", "outbox", "owner", "received", "released_early",
        "subscriptions", "will", "will_at",
    )  # fmt: skip

    def __init__(self, client_id: str, owner: str) -> None:
        self.client_id = client_id
        self.owner = owner
        self.connection: ServerConnection | None = None
        #: Seconds that it outlives a connection; infinity for as long as the process.
        self.expiry = 0.0
        #: When it ends, and when its will is due, in the clock's own seconds; None while connected, or without one.
        self.ends_at: float | None = None
        self.will_at: float | None = None
        self.will: Will | None = None
        #: By topic filter, with the granted QoS.
        self.subscriptions: dict[str, Filter] = {}
        #: QoS 2 packet identifiers that the client has not released, and whether their message is in the log.
        self.received: dict[int, bool] = {}
        #: Of these, released before their message was in the log.
        self.released_early: set[int] = set()
        #: QoS 1: in the log, but their connection was gone before the PUBACK. The client sends them again.
        self.in_doubt: dict[int, Publish] = {}
        self.outbox: Outbox | None = None

    def is_repeated(self, message: Publish) -> bool:
        """Whether the client sent again, at QoS 1, what is in the log and could not be acknowledged.

        Only then: once a PUBACK is on its way the identifier may soon name another message with the same bytes.
        """
        doubted = self.in_doubt.pop(message.packet_id, None) if self.in_doubt else None
        return doubted is not None and message.duplicate and doubted[:2] == message[:2]
