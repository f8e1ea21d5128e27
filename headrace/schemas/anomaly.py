"""What `telemetry.anomalies` carries: readings unlike their device's own past, with the numbers that say so."""

from pydantic import BaseModel, ConfigDict


class Anomaly(BaseModel):
    """One measure of one reading that a detector found unusual. Record key: the device id; message id also a header.

    Args:
        device_id, device_type: whose reading.
        time: its event time, ms since 1970 UTC.
        metric: name of the measure.
        value, mean, stddev: of the measure now, and over the baseline; in its unit.
        sigma: distance from the mean in standard deviations; None if the baseline is constant.
        baseline_count: readings in the baseline.
        detector: which detector.
        message_id: of the reading.
        text: all that in a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    device_type: str
    time: int
    metric: str
    value: float
    mean: float
    stddev: float
    sigma: float | None
    baseline_count: int
    detector: str
    message_id: str
    text: str
