"""The values that rules look at, in a batch: metrics, their rates, and expressions."""

import numpy as np

from headrace.agents.alerting.device_order import Ordered
from headrace.agents.alerting.last_readings import LastReadings
from headrace.agents.alerting.measure_columns import Looked
from headrace.agents.alerting.sample import compiled
from headrace.agents.alerting.work import Work
from headrace.schemas.readings import Floats, Readings


class ColumnValues:
    """Values in the order of the groups; NaN where a reading has nothing new, or is not evaluated.

    Args:
        work: the batch.
        readings: of one device type.
        ordered: the same by device.
        last: the table of last readings, which move on when the batch finishes.
    """

    def __init__(self, work: Work, readings: Readings, ordered: Ordered, last: LastReadings) -> None:
        self._work = work
        self._readings = readings
        self._ordered = ordered
        self._last = last
        self._news = readings.news()
        self._late = None if ordered.in_order.all() else ~ordered.in_order
        self._rates: dict[str, Floats] = {}

    def of(self, looked: Looked) -> Floats | None:
        """The values, (n,); None if there are none."""
        if looked.kind == "expression":
            return self._expression(looked.name)
        values = self._metric(looked.name)
        if values is None or looked.kind == "metric":
            return values
        if looked.name not in self._rates:
            self._rates[looked.name] = self._changes(looked.name, values)
        return self._rates[looked.name] * looked.per

    def used(self, looked: Looked, at: int) -> dict[str, float] | None:
        """The metrics that the value of reading `at` is made of; None but for expressions."""
        if looked.kind != "expression":
            return None
        return {name: float(self._readings.measures[name][at]) for name in compiled(looked.name).inputs}

    def _metric(self, name: str) -> Floats | None:
        column = self._news.get(name)
        return None if column is None else self._in_order(column)

    def _changes(self, name: str, values: Floats) -> Floats:
        groups, ids = self._ordered.groups, self._readings.device_ids
        devices = [ids[at] for at in groups.order[groups.heads].tolist()]
        last = self._last.of(self._work.partition, self._readings.device_type, name)
        changes, move_on = last.changes_of(devices, groups, values)
        self._work.batch.on_finish(move_on)
        return changes

    def _expression(self, text: str) -> Floats | None:
        expression, measures = compiled(text), self._readings.measures
        if any(name not in measures for name in expression.inputs):
            return None
        values = expression.evaluate(measures)
        if self._readings.repeats is not None:
            values[np.all([np.isnan(self._news[name]) for name in expression.inputs], axis=0)] = np.nan
        return self._in_order(values)

    def _in_order(self, column: Floats) -> Floats:
        values = column[self._ordered.groups.order]
        if self._late is not None:
            values[self._late] = np.nan
        return values
