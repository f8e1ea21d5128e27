"""Rows of series take memory where something was written, and nowhere else."""

import numpy as np
import psutil

from headrace.tables.series_columns import SeriesColumns

DEVICES, HOURS, WIDTH = 20_000, 168, 12


def test_first_hour_of_many_devices_takes_the_memory_of_an_hour() -> None:
    """Not the pages of a week: 80 MB more, at 4 KiB for each device."""
    columns = SeriesColumns(HOURS, WIDTH, np.float32)
    columns.measures.add(["temp"])
    everybody = columns.devices.numbers([f"device-{number}" for number in range(DEVICES)])
    columns.reserve()
    hour = np.full(DEVICES, 7)
    rows = np.ones((WIDTH, DEVICES, 1), np.float32)
    before = psutil.Process().memory_info().rss

    columns.write(everybody, hour, rows)

    assert psutil.Process().memory_info().rss - before < 20_000_000
    assert (columns.read(everybody, hour) == 1).all()
    assert not columns.read(everybody, hour + 1).any()
