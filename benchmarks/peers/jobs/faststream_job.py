"""FastStream: a batch subscriber with windows written by hand. See README.md for why so."""

import asyncio

import orjson
from aggregates import WINDOW_MS, first, fold
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from meter import Job, Meter

job = Job()
meter = Meter(job.warm_up)
broker = KafkaBroker(job.bootstrap, apply_types=False, logger=None)
#: The open window of each device; lost with the process.
windows = {}


@broker.subscriber(
    job.input,
    batch=True,
    max_records=5_000,
    group_id=job.group,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def rollup(readings):
    meter.seen(len(readings))
    closed = []
    for reading in readings:
        device, time = reading["device_id"], reading["timestamp"]
        start = time - time % WINDOW_MS
        window = windows.get(device)
        if window is not None and window["start"] == start:
            fold(window, reading)
            continue
        if window is not None:
            closed.append(await broker.publish(orjson.dumps(window), job.output, key=device.encode(), no_confirm=True))
        window = windows[device] = first(reading)
        window["start"] = start
    # One batch of it goes to one partition and holds 16 KiB: publish_batch is no way to send by key.
    await asyncio.gather(*closed)


if __name__ == "__main__":
    asyncio.run(FastStream(broker, logger=None).run())
