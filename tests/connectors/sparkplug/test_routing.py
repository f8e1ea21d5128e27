"""Sparkplug's messages and all others, each on their way: what may be there again stays with its message."""

from collections.abc import Sequence

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.routing import SparkplugRouting
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from tests.connectors.sparkplug.edge_node import EdgeNode

NOW = 1_750_000_000_000


class Others:
    """Keeps what it is given: topic, and whether it may have been there before."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bool]] = []

    def takes(self, topic: bytes) -> bool:
        """See `headrace.connectors.sparkplug.routing.Others`."""
        return True

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """See `headrace.connectors.sparkplug.routing.Others`."""
        self.found += [(topic, place in again) for place, topic in enumerate(topics)]


async def test_what_may_be_there_again() -> None:
    """Places are those among the messages that are handed on."""
    log, clock, others = EmbeddedLog(MEMORY), ManualClock(NOW), Others()
    specs = [*Intake.topic_specs(1), *SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, 1)]
    await log.create_topics(specs)
    profile = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")
    routing = SparkplugRouting(SparkplugIntake(SparkplugSettings(), profile, Intake(log, clock), log, clock), others)
    birth, payload = EdgeNode().node_birth(NOW, {})
    sent = [b"a", birth.encode(), b"b", b"c"]

    await routing.append(sent, [b"{}", payload, b"{}", b"{}"], [0, 1, 3])
    await routing.append([b"d", b"e"], [b"{}"] * 2, [1])
    await log.close()

    assert others.found == [(b"a", True), (b"b", False), (b"c", True), (b"d", False), (b"e", True)]
