"""Last computing stage of ingest: metrics derived from others of the same reading."""

from collections.abc import Mapping

from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Floats


def derive(device_type: DeviceType, measures: Mapping[str, Floats]) -> dict[str, Floats]:
    """The derived metrics by name, each (n,) float64; NaN where an input is absent.

    Only metrics of which all inputs are there in some message.
    """
    return {
        name: expression.evaluate(measures)
        for name, expression in device_type.expressions.items()
        if all(field in measures for field in expression.inputs)
    }
