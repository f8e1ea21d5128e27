"""What a source of MQTT messages hands them to; `headrace.connectors.routed_intake.RoutedIntake` is one."""

from collections.abc import Sequence
from typing import Protocol

import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected, RetryLater

log = structlog.get_logger(__name__)

#: Seconds before an append that the other side could not take is tried again, if it does not say.
APPEND_PAUSE = 1.0


class TopicIntake(Protocol):
    """What a source of MQTT messages needs of the log."""

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Raises:
            RetryLater, Disconnected: nothing was appended; try the same again.
            LogError: nothing was appended, and nothing will be.
        """
        ...


async def append_until_taken(
    intake: TopicIntake, topics: Sequence[bytes], payloads: Sequence[bytes], clock: Clock
) -> None:
    """Append, again and again while the other side is away.

    Raises:
        LogError: nothing was appended, and nothing will be.
    """
    while True:
        try:
            await intake.append(topics, payloads)
        except (RetryLater, Disconnected) as error:
            log.warning("mqtt_append_repeated", messages=len(topics), reason=str(error))
            await clock.sleep(error.after if isinstance(error, RetryLater) else APPEND_PAUSE)
        else:
            return
