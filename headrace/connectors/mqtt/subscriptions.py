"""Which sessions a command goes to."""

from collections.abc import Iterator

from headrace.connectors.mqtt.access import DEVICE
from headrace.connectors.mqtt.codec.packets import Filter
from headrace.connectors.mqtt.codec.topic import matches
from headrace.connectors.mqtt.session import Session


class Subscriptions:
    """Topic filters of sessions, found by the device that a command is for: most devices subscribe to their own.

    Args:
        pattern: topics of commands; its `{device}` says which level names the device.
    """

    def __init__(self, pattern: str) -> None:
        levels = pattern.split("/")
        self._place = levels.index(DEVICE) if DEVICE in levels else None
        self._sessions: dict[str | None, dict[Session, None]] = {}

    def device_of(self, topic: str) -> str:
        """The device that a command's topic names; the topic itself if the pattern has no device."""
        return topic if self._place is None else topic.split("/")[self._place]

    def add(self, session: Session, wanted: Filter) -> None:
        """Session subscribes; to the same filter once more changes its options."""
        session.subscriptions[wanted.name] = wanted
        self._sessions.setdefault(self._key(wanted.name), {})[session] = None

    def remove(self, session: Session, name: str) -> bool:
        """Session wants no more of it; whether it had."""
        if session.subscriptions.pop(name, None) is None:
            return False
        key = self._key(name)
        if not any(self._key(other) == key for other in session.subscriptions):
            sessions = self._sessions[key]
            del sessions[session]
            if not sessions:
                del self._sessions[key]
        return True

    def forget(self, session: Session) -> None:
        """The session has ended."""
        for name in list(session.subscriptions):
            self.remove(session, name)

    def find(self, topic: str, sender: str | None = None) -> Iterator[tuple[Session, int]]:
        """Sessions that take a command on `topic`, each once, with the highest QoS that it was granted.

        Args:
            sender: client id of who sent it, who may not want its own (5: 3.8.3.1, No Local).
        """
        own = self._sessions.get(self.device_of(topic), {})
        for session in {**own, **self._sessions.get(None, {})}:
            granted = [
                wanted.qos
                for name, wanted in session.subscriptions.items()
                if matches(name, topic) and not (wanted.no_local and session.client_id == sender)
            ]
            if granted:
                yield session, max(granted)

    def _key(self, name: str) -> str | None:
        """The one device that a filter is about; None for any."""
        levels = name.split("/")
        if self._place is None or self._place >= len(levels) or {"+", "#"} & set(levels[: self._place + 1]):
            return None
        return levels[self._place]
