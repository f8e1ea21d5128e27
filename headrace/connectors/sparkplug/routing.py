"""Messages of a source on their way: Sparkplug's to the intake that knows their edge nodes, all others as before."""

from collections.abc import Sequence
from typing import Protocol

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.topic import NAMESPACE, STATE

#: What hosts say of themselves comes to one that asks for its own; no profile is about it.
_STATES = f"{NAMESPACE}/{STATE}/".encode()


class Others(Protocol):
    """What `headrace.connectors.routed_intake.RoutedIntake` is."""

    def takes(self, topic: bytes) -> bool:
        """Whether some profile takes the topic."""
        ...

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """Append messages in order."""
        ...


class SparkplugRouting:
    """Two intakes as one. Messages of one topic, and of one edge node, stay in order.

    Args:
        sparkplug: takes what its profile takes.
        others: takes everything else.
    """

    def __init__(self, sparkplug: SparkplugIntake, others: Others) -> None:
        self._sparkplug = sparkplug
        self._others = others

    def takes(self, topic: bytes) -> bool:
        """Whether some profile takes the topic."""
        return self._sparkplug.takes(topic) or self._others.takes(topic)

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """Append messages; when this returns they are in the log for good.

        Args:
            topics, payloads: of the messages.
            again: places of those that may have been appended before; Sparkplug's are recognised by their bytes.
        Raises:
            LogError: not all were appended; do not acknowledge.
        """
        mine = [topic.startswith(_STATES) or self._sparkplug.takes(topic) for topic in topics]
        if not any(mine):
            await self._others.append(topics, payloads, again)
            return
        rest = [place for place, is_mine in enumerate(mine) if not is_mine]
        if rest:
            known = set(again)
            marked = [row for row, place in enumerate(rest) if place in known]
            await self._others.append([topics[place] for place in rest], [payloads[place] for place in rest], marked)
        chosen = [place for place, is_mine in enumerate(mine) if is_mine]
        await self._sparkplug.append([topics[place] for place in chosen], [payloads[place] for place in chosen])
