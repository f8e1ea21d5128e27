"""What detectors find, and how it is staged."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from headrace.engine.batch import Batch
from headrace.engine.operator import Operator
from headrace.engine.records import Records
from headrace.schemas import topics

#: Row of the batch that showed an anomaly, and the document, as `headrace.schemas.anomaly` says.
Found = tuple[int, dict[str, Any]]


class Finder(Operator, Protocol):
    """An operator on `telemetry.readings` that does nothing but find anomalies."""

    def find(self, batch: Batch) -> list[Found]:
        """The anomalies, in the order of their rows; stages what it learned, and sends nothing."""
        ...


def send_anomalies(batch: Batch, found: Sequence[Found]) -> None:
    """Stage anomalies for `telemetry.anomalies`, in this order."""
    if not found:
        return
    stamps = [batch.idle.now_ms] if batch.idle is not None else batch.records.timestamps
    documents = [document for _, document in found]
    records = Records(
        [document["device_id"].encode() for document in documents],
        [orjson.dumps(document) for document in documents],
        [stamps[row] for row, _ in found],
        {topics.MESSAGE_ID: [(document["message_id"] or "").encode() for document in documents]},
    )
    batch.send_records(topics.ANOMALIES, records, partition=batch.partition)


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(41.3), duration(18_060), duration(604_800)
    ('41.3 seconds', '5.02 hours', '7 days')
    """
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} seconds"
