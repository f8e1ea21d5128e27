"""The log that the settings name, opened to work on."""

from pathlib import Path

from headrace.cli.settings import Settings
from headrace.connectors.notifications.delivery import Delivery
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake
from headrace.engine.kafka.settings import SCHEME
from headrace.engine.log import Log, TopicSpec
from headrace.engine.monitoring import Monitoring
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from headrace.tables.replicated import HISTORY, replicated_topic


async def open_log(settings: Settings, folder: Path | None, role: str, monitoring: Monitoring | None = None) -> Log:
    """The log, connected; the caller closes it.

    Args:
        folder: where the embedded log is.
        role: what the process does, such as "worker"; with its instance the name that Kafka knows it by.
        monitoring: of the process, if it has one.
    Raises:
        ConfigError: no Kafka there, or no folder for the embedded log.
        LogError: it cannot be opened.
    """
    if settings.log.url.startswith(SCHEME):
        from headrace.engine.kafka.log import KafkaLog  # noqa: PLC0415 - half a second that a laptop need not wait

        log = KafkaLog(
            settings.log.url,
            settings.kafka,
            SystemClock(),
            role=role,
            metrics=monitoring.metrics if monitoring else None,
            health=monitoring.health if monitoring else None,
        )
        await log.start()
        return log
    if folder is None:
        raise ConfigError("--data is missing: name the data folder, or a Kafka as [log] url in --config")
    return EmbeddedLog(folder, retention=settings.log.retention, retention_bytes=settings.log.retention_bytes)


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """Every topic that headrace works with, but for the changelogs of tables."""
    partitions = settings.log.partitions
    return [
        *Intake.topic_specs(partitions),
        *SinkRunner.topic_specs(),
        *(TopicSpec(name, partitions) for name in (*topics.OUTPUTS, topics.PRESENCE)),
        TopicSpec(topics.ALERT_COMMANDS, partitions),
        TopicSpec(topics.NOTIFICATION_REQUESTS, partitions),
        TopicSpec(topics.ALERT_STATES, partitions, compacted=True, retention=HISTORY),
        TopicSpec(topics.SEQUENCES, partitions, compacted=True, retention=HISTORY),
        *map(replicated_topic, (topics.RULES, topics.SILENCES, topics.ALERT_CAUSES, topics.USERS)),
        *Delivery.topic_specs(partitions),
    ]
