"""The aggregation of the Python peers, per device: count, sum, minimum and maximum of four measures, as plain lists."""

MEASURES = ("temperature", "humidity", "co2", "pm25")
WINDOW_MS = 60_000


def first(reading):
    """Aggregates of the first reading of a window."""
    made = {}
    for name in MEASURES:
        value = reading[name]
        made[name] = [1, value, value, value]
    return made


def fold(aggregates, reading):
    """Add a reading to aggregates, in place."""
    for name in MEASURES:
        value = reading[name]
        cell = aggregates[name]
        cell[0] += 1
        cell[1] += value
        if value < cell[2]:
            cell[2] = value
        elif value > cell[3]:
            cell[3] = value
    return aggregates
