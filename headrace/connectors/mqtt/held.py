"""Messages that are in the log and that the broker may send once more."""

from collections.abc import Iterable

from headrace.connectors.mqtt.codec.packets import Publish


class Held:
    """Recognises repeats by packet id and content, for as long as the broker keeps the session.

    At QoS 1 these are messages whose connection was gone before the PUBACK; at QoS 2 all, until the broker releases
    them. Content counts too: a broker that lost its memory may give the same packet id to another message.
    """

    def __init__(self) -> None:
        self._messages: dict[int, Publish] = {}

    def is_repeated(self, message: Publish) -> bool:
        """Whether it is in the log already."""
        held = self._messages.get(message.packet_id)
        if held is None:
            return False
        if message.qos == 1:
            # Once a PUBACK is on its way the id may soon name another message with the same bytes.
            del self._messages[message.packet_id]
        return held[:2] == message[:2] and held.qos == message.qos and (message.duplicate or message.qos == 2)

    def hold(self, messages: Iterable[Publish]) -> None:
        """Remember what was appended."""
        for message in messages:
            if message.packet_id:
                self._messages[message.packet_id] = message

    def release(self, packet_ids: Iterable[int]) -> None:
        """The broker will not send these again."""
        for packet_id in packet_ids:
            self._messages.pop(packet_id, None)

    def clear(self) -> None:
        """The broker has forgotten the session."""
        self._messages.clear()
