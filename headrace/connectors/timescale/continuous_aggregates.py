"""Continuous aggregates of readings tables: bins of 15 minutes, of those hours, of those days.

Per measure a bin has count, sum, min and max of the values that are not null; the mean is sum / count. Measures that a
device type gets later have views of their own, so that what older views hold of readings that are archived meanwhile
stays: of a view nothing is ever made anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.connectors.timescale.readings_table import ReadingsTable, quoted, short_name

#: Bins by name, the finest first, and the source of each: readings or the bin before.
BINS: Mapping[str, str] = {"15m": "15 minutes", "1h": "1 hour", "1d": "1 day"}
#: Four columns each; PostgreSQL has at most 1,600.
MEASURES_PER_VIEW = 300
FUNCTIONS = ("count", "sum", "min", "max")


def column(function: str, measure: str) -> str:
    """Column of a view.

    >>> column("sum", "co2")
    'sum_co2'
    """
    return short_name(f"{function}_{measure}")


def view_name(table: str, bin_: str, generation: int) -> str:
    """View of a table, for the measures of a generation, from 1.

    >>> view_name("readings_air", "1h", 1), view_name("readings_air", "1h", 2)
    ('readings_air_1h', 'readings_air_1h_2')
    """
    return short_name(table, f"_{bin_}" + (f"_{generation}" if generation > 1 else ""))


@dataclass(frozen=True, slots=True)
class View:
    """One continuous aggregate.

    Args:
        name: of the view.
        source: table or view that it is made from.
        bin_: of `BINS`.
        measures: those that it has.
    """

    name: str
    source: str
    bin_: str
    measures: Sequence[str]

    @property
    def create(self) -> str:
        """SQL that makes it, empty: the refresh job fills it, and until then readings answer for it."""
        finest = self.bin_ == next(iter(BINS))
        columns = [
            f"{_merged(function, measure) if not finest else f'{function}({quoted(measure)})'} "
            f"AS {quoted(column(function, measure))}"
            for measure in self.measures
            for function in FUNCTIONS
        ]
        time = "time" if finest else "bucket"
        return (
            f"CREATE MATERIALIZED VIEW {quoted(self.name)} "
            "WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS\n"
            f"SELECT device_id, time_bucket(INTERVAL '{BINS[self.bin_]}', {time}) AS bucket, {', '.join(columns)}\n"
            f"FROM {quoted(self.source)} GROUP BY 1, 2 WITH NO DATA"
        )


def views_of(table: ReadingsTable, existing: Mapping[str, frozenset[str]]) -> tuple[list[View], list[str]]:
    """Views to make for a table, the finest first, and all its views there will be, likewise.

    Args:
        existing: columns by view.
    """
    there: list[list[str]] = []
    covered: set[str] = set()
    while (columns := existing.get(view_name(table.name, "15m", len(there) + 1))) is not None:
        covered |= {measure for measure in table.spec.measures if column("count", measure) in columns}
        there.append([measure for measure in table.spec.measures if column("count", measure) in columns])
    new = [measure for measure in table.spec.measures if measure not in covered]
    parts = [new[at : at + MEASURES_PER_VIEW] for at in range(0, len(new), MEASURES_PER_VIEW)]
    views = [view for number, part in enumerate([*there, *parts], 1) for view in _hierarchy(table.name, number, part)]
    names = [view.name for bin_ in BINS for view in views if view.bin_ == bin_]
    return [view for view in views if view.name not in existing], names


def _hierarchy(table: str, generation: int, measures: Sequence[str]) -> Iterator[View]:
    source = table
    for bin_ in BINS:
        view = View(view_name(table, bin_, generation), source, bin_, measures)
        yield view
        source = view.name


def _merged(function: str, measure: str) -> str:
    name = quoted(column(function, measure))
    # The sum of bigint is numeric.
    return {"count": f"sum({name})::bigint"}.get(function, f"{function}({name})")
