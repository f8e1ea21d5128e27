"""Quix Streams: a tumbling window with `Reduce`, final results. See README.md for why so."""

from aggregates import WINDOW_MS, first, fold
from meter import Job, Meter
from quixstreams import Application
from quixstreams.dataframe.windows import Reduce

job = Job()
meter = Meter(job.warm_up)


def event_time(value, headers, timestamp, timestamp_type):
    meter.seen()
    return value["timestamp"]


commit = {} if job.commit_seconds is None else {"commit_interval": job.commit_seconds}
app = Application(
    broker_address=job.bootstrap,
    consumer_group=job.group,
    auto_offset_reset="earliest",
    processing_guarantee=job.guarantee,
    state_dir=job.folder,
    loglevel="WARNING",
    **commit,
)
source = app.topic(job.input, timestamp_extractor=event_time, key_deserializer="bytes")
windows = app.dataframe(source).tumbling_window(WINDOW_MS).agg(value=Reduce(fold, first)).final()
windows.to_topic(app.topic(job.output, key_serializer="bytes"))

if __name__ == "__main__":
    app.run()
