"""How detectors stage what they found."""

from collections.abc import Sequence
from typing import Any

import orjson

from headrace.engine.batch import Batch
from headrace.engine.records import Records
from headrace.schemas import topics


def send_anomalies(batch: Batch, found: Sequence[tuple[int, dict[str, Any]]]) -> None:
    """Stage anomalies for `telemetry.anomalies`, in this order.

    Args:
        batch: that showed them.
        found: row of the batch, and document as `headrace.schemas.anomaly` says.
    """
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
