"""What a source of MQTT messages hands them to; `headrace.connectors.routed_intake.RoutedIntake` is one."""

from collections.abc import Sequence
from typing import Protocol


class TopicIntake(Protocol):
    """What a source of MQTT messages needs of the log."""

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Raises:
            RetryLater, Disconnected: nothing was appended; try the same again.
            LogError: nothing was appended, and nothing will be.
        """
        ...
