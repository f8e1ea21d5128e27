"""What is on its way to a client."""

from collections import deque

from headrace.connectors.mqtt.codec.packets import Publish

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
        self._queue: deque[tuple[Publish, int | None]] = deque()
        self._sent: dict[int, Publish] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    def offer(self, message: Publish, expires_ms: int | None = None) -> bool:
        """Take a message, to be sent with QoS 1 before it expires; False if there are too many."""
        if len(self) >= MAX_QUEUED:
            return False
        self._queue.append((message, expires_ms))
        return True

    def to_send(self, now_ms: int) -> list[Publish]:
        """What may be sent now, with packet identifiers; what has expired is dropped."""
        found = []
        while self._queue and len(self._sent) < self.window:
            waiting, expires_ms = self._queue.popleft()
            message = waiting if waiting.packet_id else unexpired(waiting, expires_ms, now_ms)
            if message is not None:
                if not message.packet_id:
                    message = message._replace(packet_id=self._next_id())
                self._sent[message.packet_id] = message
                found.append(message)
        return found

    def begin_again(self, window: int) -> None:
        """On a new connection what was sent on the one before goes first, in that order, under the same identifiers."""
        self.window = window
        self._queue.extendleft((message._replace(duplicate=True), None) for message in reversed(self._sent.values()))
        self._sent.clear()

    def acknowledge(self, packet_id: int) -> bool:
        """The client has it; False if nothing was sent under this identifier."""
        return self._sent.pop(packet_id, None) is not None

    def _next_id(self) -> int:
        taken = {*self._sent, *(message.packet_id for message, _ in self._queue)}
        while True:
            self._last_id = self._last_id % LAST_ID + 1
            if self._last_id not in taken:
                return self._last_id


def unexpired(message: Publish, expires_ms: int | None, now_ms: int) -> Publish | None:
    """The message with the seconds that are left of its expiry (5: 3.3.2.3.3); None if there are none."""
    if expires_ms is None:
        return message
    left = -(-(expires_ms - now_ms) // 1000)
    if left <= 0:
        return None
    return message._replace(properties={**message.properties, "message_expiry_interval": left})
