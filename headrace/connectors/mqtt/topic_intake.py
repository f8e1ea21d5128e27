"""Appends MQTT messages by their topics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from headrace.connectors.topic_profile import TopicProfile, TopicRoutes
from headrace.engine.intake import MessageIntake

log = structlog.get_logger(__name__)


class TopicIntake(Protocol):
    """What a source of MQTT messages needs of the log."""

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Append messages in order; when this returns they are in the log for good.

        Raises:
            RetryLater, Disconnected: nothing was appended; try the same again.
            LogError: nothing was appended, and nothing will be.
        """
        ...


@dataclass(slots=True)
class _Columns:
    """Messages of one profile, as `Intake.append` takes them."""

    device_ids: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    topics: list[bytes] = field(default_factory=list)


class ProfileIntake:
    """Appends the messages of some profiles; drops and counts the others."""

    def __init__(self, intake: MessageIntake, profiles: Sequence[TopicProfile]) -> None:
        self._intake = intake
        self._routes = TopicRoutes(profiles)
        self.unmatched = 0

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """See `TopicIntake`."""
        columns_of: dict[TopicProfile, _Columns] = {}
        for topic, payload in zip(topics, payloads, strict=True):
            route = self._routes.find(topic)
            if route is None:
                self._drop(topic)
                continue
            columns = columns_of.setdefault(route.profile, _Columns())
            columns.device_ids.append(route.device_id)
            columns.payloads.append(payload)
            columns.topics.append(topic)
        for profile, columns in columns_of.items():
            await self._intake.append(
                columns.device_ids,
                columns.payloads,
                device_type=profile.device_type,
                profile=profile.name,
                sources=columns.topics,
            )

    def _drop(self, topic: bytes) -> None:
        if not self.unmatched:
            log.warning("mqtt_unmatched_topic", topic=topic.decode(errors="replace"))
        self.unmatched += 1
