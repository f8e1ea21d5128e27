"""Puts the messages of a shard into the log, with their position, for as long as it takes."""

from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from headrace.connectors.kinesis.messages import Messages
from headrace.connectors.kinesis.source_settings import KEY, KinesisSourceSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import UNKNOWN, TopicRoutes
from headrace.connectors.unpacking import unpack
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, Disconnected, RetryLater
from headrace.engine.intake import Intake, Mark
from headrace.engine.metrics import Metrics
from headrace.schemas.topics import REFUSED, SEQUENCE

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
        metrics: told of messages that cannot be unpacked, or are no readings.
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
        self._routes = TopicRoutes(profiles)
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, messages: Messages, mark: Mark) -> None:
        """See `Append`."""
        arguments = (
            self._plain(messages) if self._settings.topic is None else self._routed(messages, self._settings.topic)
        )
        while True:
            try:
                await self._intake.append(**arguments, mark=mark)
            except (RetryLater, Disconnected) as error:
                log.warning("kinesis_append_repeated", messages=len(messages.payloads), reason=str(error))
                await self._clock.sleep(error.after if isinstance(error, RetryLater) else APPEND_PAUSE)
            else:
                return

    def _plain(self, messages: Messages) -> dict[str, Any]:
        refused = [messages.refused.get(place) for place in range(len(messages.payloads))]
        return {
            "device_ids": messages.device_ids,
            "payloads": messages.payloads,
            "device_type": self._settings.device_type,
            "profile": self._settings.profile,
            "sources": messages.sources,
            "alarms": messages.alarms,
            "headers": {REFUSED: refused} if messages.refused else None,
        }

    def _routed(self, messages: Messages, topic: str) -> dict[str, Any]:
        topics = [topic.replace(KEY, key.decode()).encode() for key in messages.device_ids]
        routes = self._routes.find(topics)
        for place in messages.refused:
            routes[place] = routes[place]._replace(fields=None, unpack=None)
        made = unpack(routes, topics, messages.payloads, self._clock.now_ms())
        reasons = [messages.refused.get(row, reason) for row, reason in zip(made.rows, made.reasons, strict=True)]
        for row, reason in zip(made.rows, reasons, strict=True):
            if reason is not None:
                self._metrics.count("headrace_unpack_refused_total", profile=routes[row].profile)
        for event in made.events:
            self._metrics.count("headrace_device_events_total", profile=event.profile)
        headers = {name: values for name, values in ((REFUSED, reasons), (SEQUENCE, made.sequences)) if any(values)}
        return {
            "device_ids": made.device_ids,
            "payloads": made.payloads,
            "device_type": [routes[row].device_type for row in made.rows] or "",
            "profile": [routes[row].profile for row in made.rows] or "",
            # Where a message without device comes from is its topic: a replay of dead letters goes by that.
            "sources": [topics[row] for row in made.rows],
            "alarms": made.alarms,
            "headers": headers or None,
            "events": made.events,
        }
