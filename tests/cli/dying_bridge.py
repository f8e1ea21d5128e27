"""A bridge that kills itself between an append and its acknowledgement: `python -m tests.cli.dying_bridge`.

Arguments: data folder, port of the broker, and how many messages are appended when it dies (0: it never does, and ends
in order once a message on the topic `meters/end` is appended).
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.connectors.mqtt.settings import MqttSettings
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake

PROFILES = [
    TopicProfile.model_validate(
        {"name": "meters", "topic": "meters/{device}", "device_type": "meter", "sequence": {"field": "seq"}}
    ),
    TopicProfile.model_validate(
        {"name": "clockless", "topic": "clockless/{device}", "device_type": "meter", "sequence": {"field": "seq"}}
    ),
    TopicProfile(
        name="lorawan", topic="application/+/device/{device}/event/+", device_type="meter", format="chirpstack"
    ),
]
LAST = b"meters/end"
#: Seconds in which so many messages come, however slow the machine is.
LINGER = 300.0


class Dying:
    """Appends, and does not live to see what it has appended acknowledged.

    Args:
        inner: appends.
        dies_after: messages; 0 for never.
        end: set when the last message is in the log.
    """

    def __init__(self, inner: RoutedIntake, dies_after: int, end: asyncio.Event) -> None:
        self._inner = inner
        self._dies_after = dies_after
        self._end = end
        self._appended = 0

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """See `headrace.connectors.mqtt.topic_intake.TopicIntake`."""
        await self._inner.append(topics, payloads, again)
        self._appended += len(topics)
        if 0 < self._dies_after <= self._appended:
            os.kill(os.getpid(), signal.SIGKILL)
        if LAST in topics:
            self._end.set()


async def main(folder: Path, port: int, dies_after: int) -> None:
    """Take messages until the end, or death."""
    log, clock, end = EmbeddedLog(folder), SystemClock(), asyncio.Event()
    await log.create_topics(Intake.topic_specs(1))
    intake = Dying(RoutedIntake(Intake(log, clock), PROFILES), dies_after, end)
    # As many as it lives for come in one append, so that none of them is acknowledged before it dies.
    settings = MqttSettings.model_validate({"host": "127.0.0.1", "port": port, "receive_maximum": 65_535})
    if dies_after:
        settings = settings.model_copy(update={"max_batch": dies_after, "linger": LINGER})
    await MqttSource(settings, [each.topic_filter for each in PROFILES], intake, clock).run(end)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
