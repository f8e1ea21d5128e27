"""Commands from the log to the clients that subscribed."""

import structlog

from headrace.connectors.mqtt.access import DEVICE, Identity
from headrace.connectors.mqtt.codec.packets import Filter, Publish
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.codec.topic import SHARE, matches
from headrace.connectors.mqtt.commands import Command
from headrace.connectors.mqtt.outbox import Outbox, unexpired
from headrace.connectors.mqtt.session import Session
from headrace.connectors.mqtt.subscriptions import Subscriptions
from headrace.engine.clock import Clock

log = structlog.get_logger(__name__)


class CommandDelivery:
    """Who subscribed to which commands, and sends them there.

    Args:
        pattern: topics of commands.
        clock: says when a command has expired.
    """

    def __init__(self, pattern: str, clock: Clock) -> None:
        self.subscriptions = Subscriptions(pattern)
        self._filter = pattern.replace(DEVICE, "+")
        self._clock = clock

    def is_command(self, topic: str) -> bool:
        """Whether what is published there is for devices."""
        return matches(self._filter, topic)

    def subscribe(self, session: Session, identity: Identity, wanted: Filter) -> int:
        """Subscribe; the granted QoS, at most 1, or the reason why not."""
        if wanted.name.startswith(SHARE):
            return Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not identity.may_subscribe(wanted.name):
            return Reason.NOT_AUTHORIZED
        granted = min(wanted.qos, 1)
        if session.outbox is None:
            session.outbox = Outbox(session.connection.window if session.connection else 1)
        self.subscriptions.add(session, wanted._replace(qos=granted))
        return granted

    def send(self, message: Publish) -> None:
        """Send a message at QoS 0 to those who listen now; it has not been in the log."""
        for session, _ in self.subscriptions.find(message.topic.decode()):
            if session.connection is not None:
                session.connection.deliver(message._replace(qos=0))

    def deliver(self, command: Command) -> None:
        """A command is in the log: send it to those who listen."""
        topic = command.message.topic.decode()
        if not self.is_command(topic):
            return
        for session, granted in self.subscriptions.find(topic, command.client_id):
            connection = session.connection
            qos = min(granted, command.message.qos)
            if qos == 0:
                message = unexpired(command.message._replace(qos=0), command.expires_ms, self._clock.now_ms())
                if connection is not None and message is not None:
                    connection.deliver(message)
            elif session.outbox is not None:
                if not session.outbox.offer(command.message._replace(qos=1), command.expires_ms):
                    log.warning("mqtt_command_dropped", client_id=session.client_id, waiting=len(session.outbox))
                elif connection is not None:
                    connection.send_outbox()
