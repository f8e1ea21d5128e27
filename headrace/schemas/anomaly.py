"""What `telemetry.anomalies` carries: readings unlike their series' own past, with the numbers that say so."""

from pydantic import BaseModel, ConfigDict


class Anomaly(BaseModel):
    """One measure of one reading that a detector found unusual. Record key: the device id; message id also a header.

    Args:
        device_id, device_type: whose reading.
        time: its event time, ms since 1970 UTC.
        metric: name of the measure; "cadence" where the device is silent.
        value: of the measure, in its unit; a counter's is its rise per second; seconds of silence for "cadence".
        expected: what it would have been, in the same unit; None if the detector expects nothing.
        score: how unusual, by the measure of the detector; see its documentation.
        probability: that somebody would call it an anomaly, 0 to 1; None from detectors that are not calibrated.
        detector: which detector.
        numbers: what else made the score, by name.
        message_id: of the reading; for "cadence" of the record that showed it, None if that was of another device type,
            or if time showed it.
        text: all that in a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    device_type: str
    time: int
    metric: str
    value: float
    expected: float | None
    score: float | None
    probability: float | None
    detector: str
    numbers: dict[str, float | None]
    message_id: str | None
    text: str
