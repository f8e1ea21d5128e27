"""What the listener remembers of a client, while it is connected and for as long after that as it asked for."""

from collections import deque
from typing import TYPE_CHECKING

from headrace.connectors.mqtt.codec.packets import Publish, Will

if TYPE_CHECKING:
    from headrace.connectors.mqtt.server_connection import ServerConnection

#: Commands that wait for a client; more are not taken.
MAX_QUEUED = 100
#: Packet identifiers are 1 to this.
LAST_ID = 65_535


class Outbox:
    """Messages to a client that are not acknowledged: some sent, the others behind them.

    Args:
        window: messages that may be sent and not acknowledged, count.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._queue: deque[Publish] = deque()
        self._sent: dict[int, Publish] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    def offer(self, message: Publish) -> bool:
        """Take a message, to be sent with QoS 1; False if there are too many."""
        if len(self) >= MAX_QUEUED:
            return False
        self._queue.append(message)
        return True

    def to_send(self) -> list[Publish]:
        """What may be sent now, with packet identifiers."""
        found = []
        while self._queue and len(self._sent) < self.window:
            message = self._queue.popleft()
            if not message.packet_id:
                message = message._replace(packet_id=self._next_id())
            self._sent[message.packet_id] = message
            found.append(message)
        return found

    def begin_again(self, window: int) -> None:
        """On a new connection what was sent on the one before goes first, in that order, under the same identifiers."""
        self.window = window
        self._queue.extendleft(message._replace(duplicate=True) for message in reversed(self._sent.values()))
        self._sent.clear()

    def acknowledge(self, packet_id: int) -> bool:
        """The client has it; False if nothing was sent under this identifier."""
        return self._sent.pop(packet_id, None) is not None

    def _next_id(self) -> int:
        taken = {*self._sent, *(message.packet_id for message in self._queue)}
        while True:
            self._last_id = self._last_id % LAST_ID + 1
            if self._last_id not in taken:
                return self._last_id


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
        #: By topic filter, the granted QoS.
        self.subscriptions: dict[str, int] = {}
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
