"""Anomalies as documents."""

from pathlib import Path

import orjson

from headrace.schemas.anomaly import Anomaly

#: One anomaly of each detector per line, as written by the first version that had them.
GOLDEN = Path(__file__).parent / "golden" / "anomalies.ndjson"


def test_golden_bytes_can_be_read() -> None:
    """What is in a topic today can be read tomorrow, with nothing lost."""
    lines = GOLDEN.read_bytes().splitlines()

    anomalies = [Anomaly.model_validate_json(line) for line in lines]

    assert [anomaly.model_dump() for anomaly in anomalies] == [orjson.loads(line) for line in lines]
    assert len({anomaly.detector for anomaly in anomalies}) == len(lines) >= 5
    assert all(anomaly.text for anomaly in anomalies)
