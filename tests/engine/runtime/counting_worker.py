"""A worker that counts, in a process of its own, to be killed: URL GROUP TOPIC OUTPUT STANDBYS [HALF].

With HALF it stops when it has been given some of a changelog, and says `half`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence

from headrace.engine.app import App
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import TopicPartition
from tests.engine.runtime.kafka_apps import FAST, MORTAL, SETTINGS, Count


class HalfRestore(KafkaLog):
    """Never comes to the end of a changelog."""

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        async for entries in super().restore(target):
            yield entries
            if entries:
                print("half", flush=True)
                await asyncio.Event().wait()


async def main(url: str, group: str, topic: str, output: str, standbys: str, half: str = "") -> None:
    """Count until the process ends."""
    calm = MORTAL.model_copy(update={"session_timeout": SETTINGS.session_timeout})
    log = HalfRestore(url, MORTAL) if half else KafkaLog(url, calm)
    await log.start()
    app = App(group, log, runtime=FAST.model_copy(update={"standbys": int(standbys)}))
    app.add([Count(topic, output)])
    await app.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
