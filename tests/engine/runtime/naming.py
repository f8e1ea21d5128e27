"""An agent that reads a replicated table; as a program a worker on Kafka that runs it until it is killed."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.operator import State
from headrace.engine.records import Records
from headrace.tables.replicated import Replicated
from tests.engine.runtime.kafka_apps import FAST, MORTAL


class Naming:
    """Sends each record on with the name that the table has for its key then: `1=hall`, `2=?`."""

    def __init__(self, topic: str, output: str, table: str, **options: Any) -> None:
        self.name = "naming"
        self.topic = topic
        self.output = output
        self.tables: Sequence[State] = ()
        self.names = Replicated(table, bytes.decode, **options)
        self.replicas = (self.names,)

    def process(self, batch: Batch) -> None:
        records = batch.records
        sent: list[bytes | None] = []
        for record in batch:
            name = self.names.get((record.key or b"").decode(), record.timestamp) or "?"
            sent.append(b"%s=%s" % (record.value, name.encode()))
        batch.send_records(self.output, Records(records.keys, sent, records.timestamps), partition=batch.partition)


async def _work(url: str, group: str, topic: str, output: str, table: str) -> None:
    """A worker until it is killed."""
    log = KafkaLog(url, MORTAL)
    await log.start()
    app = App(group, log, runtime=FAST)
    app.add([Naming(topic, output, table)])
    await app.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(_work(*sys.argv[1:]))
