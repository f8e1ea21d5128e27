"""What `headrace new agent` writes. NAME, CLASS, MODULE and PACKAGE are put in."""

AGENT = '''"""NAME: one record each time a device gets hot."""

from typing import NamedTuple

import orjson

from headrace.engine.batch import Batch
from headrace.schemas import topics
from headrace.tables.keyvalue import KeyValue

HOT = "devices.NAME"


class Device(NamedTuple):
    """Key of the table."""

    device_type: str
    device_id: str


class CLASS:
    """Send a record to `devices.NAME` when a device's temperature rises above `limit`.

    Change this into what you need. The same log gives the same records for any batch boundaries and any restart.

    Args:
        limit: degC.
    """

    name = "NAME"
    topic = topics.READINGS
    outputs = (HOT,)  # every topic that it sends to; they are made when it starts

    def __init__(self, limit: float = 30.0) -> None:
        self._limit = limit
        self._hot = KeyValue.typed("NAME", key=Device, value=int)  # those that are hot, since when (ms)
        self.tables = (self._hot,)  # what it remembers, over restarts too

    def process(self, batch: Batch) -> None:
        """Compute, and stage what shall happen; it happens when the whole batch went well."""
        hot = self._hot.draft(batch)
        found = {}
        for reading in batch.readings("temperature"):
            device = Device(reading.device_type, reading.device_id)
            celsius = reading.measures["temperature"]
            if celsius <= self._limit:
                hot.delete(device, reading.row)
            elif hot.get(device, reading.row) is None:
                hot.put(device, reading.time, reading.row)
                found[reading.row] = {"device_id": device.device_id, "time": reading.time, "temperature": celsius}
        for row in sorted(found):  # in the order of the log, whatever the device types
            batch.send(HOT, batch.records.keys[row], orjson.dumps(found[row]), row=row)
'''

TEST = '''"""NAME: what it sends."""

import orjson
from PACKAGE.MODULE import CLASS

from headrace.engine.testkit import drive, readings_log

MINUTE = 60_000
LOG = readings_log(
    [
        ("cellar", "environmental", 1_700_000_000_000, {"temperature": 29.0}),
        ("cellar", "environmental", 1_700_000_000_000 + MINUTE, {"temperature": 31.0}),
        ("attic", "environmental", 1_700_000_000_000 + MINUTE, {"humidity": 40.0}),
        ("cellar", "environmental", 1_700_000_000_000 + 2 * MINUTE, {"temperature": 32.0}),
    ]
)


def test_one_record_per_rise() -> None:
    """Only the reading that rises above the limit is reported, not every one above it."""
    sent = drive(CLASS(), LOG).sent["devices.NAME"]

    assert [orjson.loads(record.value)["temperature"] for record in sent] == [31.0]
    assert [record.key for record in sent] == [b"cellar"]


def test_boundaries_and_a_restart_change_nothing() -> None:
    """Batches of one, with a crash after each, give the same records."""
    whole = drive(CLASS(), LOG)

    assert drive(CLASS(), LOG, batch_sizes=[1] * len(LOG), restart=CLASS).sent == whole.sent
'''
