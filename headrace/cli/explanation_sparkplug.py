"""What one Sparkplug message says by itself, found out in memory."""

from collections.abc import Iterable

from headrace.cli.running import Setup
from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.topic import COMMANDS, EdgeTopic, read_topic
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics

_WITHOUT_VALUES = {
    "NBIRTH": "birth of an edge node, without values",
    "DBIRTH": "birth of a device, without values",
    "NDEATH": "death of an edge node",
    "DDEATH": "death of a device",
    "NDATA": "data of an edge node, without values",
    "DDATA": "data of a device, without values",
}


def sparkplug_profile(topic: bytes, profiles: Iterable[TopicProfile]) -> TopicProfile | None:
    """The profile, if its messages are Sparkplug's."""
    text = topic.decode(errors="replace")
    return next((each for each in profiles if each.format == "sparkplug" and each.find(text) is not None), None)


async def append_sparkplug(
    setup: Setup, profile: TopicProfile, log: EmbeddedLog, clock: ManualClock, topic: bytes, payload: bytes
) -> None:
    """Append what a message says by itself; what it would wait for, in vain here, is soon over."""
    settings, partitions = setup.settings.sparkplug, setup.settings.log.partitions
    await log.create_topics([*SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, partitions)])
    intake = SparkplugIntake(settings, profile, Intake(log, clock), log, clock)
    await intake.append([topic], [payload])
    clock.advance(round(1000 * settings.hold))
    await intake.pass_time()


def without_records(topic: bytes) -> tuple[str, str | None]:
    """What a message is that makes no record, for a person, and whose it is.

    >>> without_records(b"spBv1.0/plant/NDEATH/press-4")
    ('death of an edge node', 'plant/press-4')
    """
    about = read_topic(topic)
    if isinstance(about, EdgeTopic):
        return _WITHOUT_VALUES[about.kind], about.device_id
    kind = topic.decode(errors="replace").split("/")[2]
    return ("command, which is for the edge node alone" if kind in COMMANDS else "state of a host application"), None
