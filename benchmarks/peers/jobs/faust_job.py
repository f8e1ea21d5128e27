"""Plain Faust: a table of open windows, closed by the device's next minute. See README.md for why so."""

import faust
import mode.loop
import orjson
from aggregates import WINDOW_MS, first, fold
from meter import Job, Meter

mode.loop.use("uvloop")
job = Job()
meter = Meter(job.warm_up)
commit = {} if job.commit_seconds is None else {"broker_commit_interval": job.commit_seconds}
app = faust.App(
    job.group,
    broker=f"kafka://{job.bootstrap}",
    datadir=job.folder,
    processing_guarantee=job.guarantee.replace("-", "_"),
    store="memory://",
    topic_partitions=4,
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    **commit,
)
source = app.topic(job.input, key_serializer="raw", value_serializer="raw")
output = app.topic(job.output, key_serializer="raw", value_serializer="raw")
windows = app.Table("windows", default=None, key_type=str, value_type=None)


@app.agent(source)
async def rollup(stream):
    async for value in stream:
        meter.seen()
        reading = orjson.loads(value)
        device, time = reading["device_id"], reading["timestamp"]
        start = time - time % WINDOW_MS
        window = windows.get(device)
        if window is not None and window["start"] == start:
            fold(window, reading)
        else:
            if window is not None:
                await output.send(key=device.encode(), value=orjson.dumps(window))
            window = first(reading)
            window["start"] = start
        windows[device] = window


if __name__ == "__main__":
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()
