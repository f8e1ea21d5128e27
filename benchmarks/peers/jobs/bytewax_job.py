"""Bytewax: `fold_window` with an event clock, recovery on. See README.md for why so.

Run by itself it executes the dataflow in one worker, as `python -m bytewax.run` does.
"""

from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import orjson
from aggregates import MEASURES, first, fold
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from meter import Job, Meter

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Most messages of one poll, as in the example of its performance guide; 1,000 and 20,000 were no faster.
BATCH = 5_000

job = Job()
meter = Meter(job.warm_up)


def decode(message):
    meter.seen()
    reading = orjson.loads(message.value)
    return reading["device_id"], reading


def event_time(reading):
    return datetime.fromtimestamp(reading["timestamp"] / 1000, UTC)


def empty():
    return {}


def folded(aggregates, reading):
    if aggregates:
        return fold(aggregates, reading)
    return first(reading)


def never(aggregates, others):
    raise NotImplementedError("tumbling windows do not merge")


def encode(keyed):
    device, (number, aggregates) = keyed
    document = {"start": number * 60_000} | {name: aggregates[name] for name in MEASURES}
    return KafkaSinkMessage(device.encode(), orjson.dumps(document))


brokers = [job.bootstrap]
flow = Dataflow("windows")
messages = kop.input("in", flow, brokers=brokers, topics=[job.input], tail=False, batch_size=BATCH)
keyed = op.map("decode", messages.oks, decode)
clock = EventClock(event_time, timedelta(0), to_system_utc=lambda _: None)
windower = TumblingWindower(length=MINUTE, align_to=EPOCH)
windows = fold_window("windows", keyed, clock, windower, empty, folded, never, ordered=False)
kop.output("out", op.map("encode", windows.down, encode), brokers=brokers, topic=job.output)

if __name__ == "__main__":
    init_db_dir(job.folder, 1)
    cli_main(flow, recovery_config=RecoveryConfig(job.folder))
