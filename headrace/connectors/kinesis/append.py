"""Puts the messages of a shard into the log, with their position, for as long as it takes."""

from collections.abc import Sequence
from typing import Protocol

import structlog

from headrace.connectors.kinesis.messages import Messages
from headrace.connectors.kinesis.source_settings import KEY, KinesisSourceSettings
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import UNKNOWN, TopicRoutes
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, Disconnected, RetryLater
from headrace.engine.intake import Intake, Mark
from headrace.engine.metrics import Metrics
from headrace.schemas.topics import REFUSED

log = structlog.get_logger(__name__)

#: Seconds before an append that the log could not take is tried again, if it does not say.
APPEND_PAUSE = 1.0


def check_topic(settings: KinesisSourceSettings, profiles: Sequence[TopicProfile]) -> None:
    """Look whether somebody takes what would be published on `settings.topic`.

    Raises:
        ConfigError: no profile does.
    """
    topic = settings.topic
    if topic is not None and TopicRoutes(profiles).find([topic.replace(KEY, "key").encode()])[0] is UNKNOWN:
        raise ConfigError(f"kinesis_source.topic: no topic profile takes {topic}")


class Append(Protocol):
    """Appends messages and a position in one step."""

    async def __call__(self, messages: Messages, mark: Mark) -> None:
        """Return when both are in the log.

        Raises:
            LogError: nothing is, and nothing will be.
        """
        ...


class KinesisAppend:
    """Appends by the settings: all records of one device type, or each as if it had been published on a topic.

    Args:
        settings: say which.
        intake: appends.
        profiles: of topics, where `settings.topic` is one.
        clock: for waiting, and says when a message is received, for formats with relative times.
        metrics: told of messages that cannot be unpacked, are no readings, or whose topic no profile takes.
    """

    def __init__(
        self,
        settings: KinesisSourceSettings,
        intake: Intake,
        profiles: Sequence[TopicProfile],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._routed = RoutedIntake(intake, profiles, metrics, clock)
        self._clock = clock

    async def __call__(self, messages: Messages, mark: Mark) -> None:
        """See `Append`."""
        topic = self._settings.topic
        while True:
            try:
                if topic is None or not messages.payloads:
                    await self._append_plain(messages, mark)
                else:
                    topics = [topic.replace(KEY, key.decode()).encode() for key in messages.device_ids]
                    await self._routed.append(topics, messages.payloads, refused=messages.refused, mark=mark)
            except (RetryLater, Disconnected) as error:
                log.warning("kinesis_append_repeated", messages=len(messages.payloads), reason=str(error))
                await self._clock.sleep(error.after if isinstance(error, RetryLater) else APPEND_PAUSE)
            else:
                return

    async def _append_plain(self, messages: Messages, mark: Mark) -> None:
        refused = [messages.refused.get(place) for place in range(len(messages.payloads))]
        await self._intake.append(
            messages.device_ids,
            messages.payloads,
            device_type=self._settings.device_type,
            profile=self._settings.profile,
            sources=messages.sources,
            alarms=messages.alarms,
            mark=mark,
            headers={REFUSED: refused} if messages.refused else None,
        )
