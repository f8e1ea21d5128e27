"""What a source of MQTT messages hands them to; `headrace.connectors.routed_intake.RoutedIntake` is one."""

from collections.abc import Sequence
from typing import Protocol

import structlog

from headrace.connectors.mqtt.codec.packets import Publish
from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected, RetryLater

log = structlog.get_logger(__name__)

#: Seconds before an append that the other side could not take is tried again, if it does not say.
APPEND_PAUSE = 1.0


class TopicIntake(Protocol):
    """What a source of MQTT messages needs of the log."""

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Args:
            topics, payloads: of the messages.
            again: places of those that may have been appended before, by what their sender says of them.
        Raises:
            RetryLater, Disconnected: nothing was appended; try the same again.
            LogError: nothing was appended, and nothing will be.
        """
        ...


async def append_until_taken(intake: TopicIntake, messages: Sequence[Publish], clock: Clock) -> None:
    """Append, again and again while the other side is away.

    Raises:
        LogError: nothing was appended, and nothing will be.
    """
    topics, payloads = [each.topic for each in messages], [each.payload for each in messages]
    again = [place for place, each in enumerate(messages) if each.duplicate]
    while True:
        try:
            await intake.append(topics, payloads, again)
        except (RetryLater, Disconnected) as error:
            log.warning("mqtt_append_repeated", messages=len(topics), reason=str(error))
            await clock.sleep(error.after if isinstance(error, RetryLater) else APPEND_PAUSE)
        else:
            return
