"""headrace: its `Rollup` in an app of its own, in transactions; runs in the project's environment."""

import asyncio
import signal

import msgspec
import numpy as np
from meter import Job, Meter

from headrace.agents.rollup import Rollup
from headrace.engine import logging
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.clock import SystemClock
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicSpec
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas import topics
from headrace.schemas.readings import Readings

PARTITIONS = 4


class Payload(msgspec.Struct, gc=False):
    device_id: str
    timestamp: int
    temperature: float
    humidity: float
    co2: float
    pm25: float


MEASURES = Payload.__struct_fields__[2:]
decode = msgspec.json.Decoder(Payload).decode


class Decoded(Batch):
    """A batch whose records are the payload of this job instead of headrace's normalised readings."""

    def __init__(self, batch: Batch) -> None:
        # What is staged here is staged there: the lists are the same.
        self.__dict__.update(batch.__dict__)
        self._decoded: list[Readings] | None = None

    def columns(self) -> list[Readings]:
        if self._decoded is None:
            self._decoded = [columns(list(map(decode, self.records.values)))] if len(self) else []
        return self._decoded


def columns(payloads: list[Payload]) -> Readings:
    count = len(payloads)
    return Readings(
        "environmental",
        np.arange(count),
        [each.device_id for each in payloads],
        np.fromiter((each.timestamp for each in payloads), np.int64, count),
        [""] * count,
        {
            "temperature": np.fromiter((each.temperature for each in payloads), np.float64, count),
            "humidity": np.fromiter((each.humidity for each in payloads), np.float64, count),
            "co2": np.fromiter((each.co2 for each in payloads), np.float64, count),
            "pm25": np.fromiter((each.pm25 for each in payloads), np.float64, count),
        },
    )


class WindowJob(Rollup):
    """Rollup of what lies in the input topic."""

    def __init__(self, job: Job) -> None:
        super().__init__(("1m",))
        self.topic = job.input
        self._meter = Meter(job.warm_up)

    def process(self, batch: Batch) -> None:
        super().process(Decoded(batch))
        self._meter.seen(len(batch))


async def main() -> None:
    job, stop = Job(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    log = KafkaLog(f"kafka://{job.bootstrap}", KafkaSettings(), SystemClock())
    await log.start()
    app = App(job.group, log, runtime=RuntimeSettings(commit_interval=job.commit_seconds))
    app.add([WindowJob(job)])
    others = (TopicSpec(name, PARTITIONS) for name in (topics.LATE, topics.DEAD_LETTERS))
    await app.create_topics(others, partitions=PARTITIONS)
    await app.run(stop)
    await log.close()


if __name__ == "__main__":
    logging.configure("warning")
    asyncio.run(main())
