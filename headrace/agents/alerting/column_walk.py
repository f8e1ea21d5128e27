"""Goes through the readings of a batch that may mean something new to the rules of a column."""

from collections.abc import Mapping
from math import inf

import numpy as np

from headrace.agents.alerting.column_values import ColumnValues
from headrace.agents.alerting.device_order import Ordered
from headrace.agents.alerting.evaluation import Seen, evaluate
from headrace.agents.alerting.ladder import Ladder
from headrace.agents.alerting.measure_columns import Column
from headrace.agents.alerting.quiet import QuietColumn, Restless
from headrace.agents.alerting.watch_table import WatchDraft, WatchTable
from headrace.agents.alerting.work import Work
from headrace.schemas.readings import Floats, Ints, Readings


class ColumnWalk:
    """The readings of one device type in a batch of the ordinary lane.

    Args:
        work: the batch.
        readings: in it.
        ordered: the same by device.
        values: what rules look at.
        draft: of the watches.
        organisations: of the devices by number, where they matter.
    """

    def __init__(
        self,
        work: Work,
        readings: Readings,
        ordered: Ordered,
        values: ColumnValues,
        draft: WatchDraft,
        organisations: Mapping[int, str | None],
    ) -> None:
        self._work = work
        self._readings = readings
        self._groups = ordered.groups
        self._values = values
        self._draft = draft
        self._organisations = organisations
        self._numbers: Ints = ordered.groups.devices[ordered.groups.heads]
        self._order: list[int] = []

    def look(self, quiet: QuietColumn, values: Floats, watches: WatchTable) -> None:
        """Evaluate the rules of a column where that may change something.

        Args:
            quiet: what is known of the column.
            values: (n,) in the order of the groups, NaN where there is none.
        """
        groups = self._groups
        lows, highs = quiet.lows[self._numbers], quiet.highs[self._numbers]
        places = np.flatnonzero((values < lows[groups.rank]) | (values > highs[groups.rank]))
        if not len(places):
            return
        places = self._settle(quiet, values, places, lows, highs, watches)
        ranks = groups.rank[places]
        first = np.flatnonzero(np.append(True, ranks[1:] != ranks[:-1])) if len(places) else places
        if not self._order:
            self._order = groups.order.tolist()
        floats = values.tolist()
        numbers: list[int] = []
        new_lows: list[float] = []
        new_highs: list[float] = []
        restless: dict[int, Restless] = {}
        found = ranks[first]
        starts, ends = places[first].tolist(), (groups.tails[found] + 1).tolist()
        known = zip(lows[found].tolist(), highs[found].tolist(), strict=True)
        for number, start, end, bounds in zip(self._numbers[found].tolist(), starts, ends, known, strict=True):
            low, high, left = self._walk(quiet, number, start, floats[start:end], bounds, watches)
            numbers.append(number)
            new_lows.append(low)
            new_highs.append(high)
            if left is not None:
                restless[number] = left
        self._work.batch.on_finish(lambda: quiet.set(numbers, new_lows, new_highs, restless))

    def _settle(
        self, quiet: QuietColumn, values: Floats, places: Ints, lows: Floats, highs: Floats, watches: WatchTable
    ) -> Ints:
        """The places without those of devices of which nothing was known, and that have nothing to do with any rule.

        After a restart, or a change of rules, this is so of nearly all: they are not looked at one by one.
        """
        column, ladder = quiet.column, quiet.column.general
        if column.limited or ladder is None:
            return places
        groups, work = self._groups, self._work
        ranks = groups.rank[places]
        first = np.flatnonzero(np.append(True, ranks[1:] != ranks[:-1]))
        steps = ladder.steps(values[places[first]])
        unknown = (lows[ranks[first]] == inf) & ladder.neutral[steps]
        device_type, ids = self._readings.device_type, self._readings.device_ids
        for place in np.flatnonzero(unknown).tolist():
            rank = ranks[first[place]]
            device_id = ids[groups.order[groups.heads[rank]]]
            unknown[place] = (
                int(self._numbers[rank]) not in quiet.restless
                and not watches.of_device(work.partition, device_type, device_id)
                and not work.alive(device_type, device_id)
            )
        if not unknown.any():
            return places
        found, steps = ranks[first[unknown]], steps[unknown]
        lows[found], highs[found] = ladder.lows[steps], ladder.highs[steps]
        numbers, new_lows, new_highs = self._numbers[found].tolist(), lows[found].tolist(), highs[found].tolist()
        work.batch.on_finish(lambda: quiet.set(numbers, new_lows, new_highs, {}))
        return places[(values[places] < lows[ranks]) | (values[places] > highs[ranks])]

    def _walk(
        self,
        quiet: QuietColumn,
        number: int,
        start: int,
        values: list[float],
        bounds: tuple[float, float],
        watches: WatchTable,
    ) -> tuple[float, float, Restless | None]:
        """Go through the readings of a device from place `start` on; what is known of it then, and was as `bounds`."""
        column, readings, work = quiet.column, self._readings, self._work
        device_id = readings.device_ids[self._order[start]]
        ladders = column.ladders(device_id, self._organisations.get(number))
        low, high = bounds
        left = quiet.restless.get(number)
        steps: list[int] | None = None
        rules: list[int] = []
        if left is not None:
            steps, rules = [ladder.step(left.value) for ladder in ladders], left.rules
        elif low <= high:
            steps = [ladder.step(low) for ladder in ladders]
        value = low
        for place, each in enumerate(values, start):
            if low <= each <= high or each != each:
                continue
            at, value = self._order[place], each
            now = [ladder.step(value) for ladder in ladders]
            if steps is None:
                concerned = self._concerned(column, ladders, now, device_id, watches)
            else:
                concerned = set(rules)
                for ladder, before, after in zip(ladders, steps, now, strict=True):
                    if before != after:
                        concerned.update(ladder.between(before, after))
            row, time = int(readings.rows[at]), int(readings.times[at])
            seen = Seen(row, readings.device_type, device_id, time, readings.message_ids[at])
            sample = (time, value, self._values.used(column.looked, at))
            rules = [each for each in concerned if not evaluate(work, column.rules[each], seen, sample, self._draft)]
            steps = now
            low, high = (inf, -inf) if rules else _bounds(ladders, now)
        return low, high, Restless(value, rules) if rules else None

    def _concerned(
        self, column: Column, ladders: list[Ladder], steps: list[int], device_id: str, watches: WatchTable
    ) -> set[int]:
        """Rules that may have something to do with a device of which nothing is known."""
        found = {number for ladder, step in zip(ladders, steps, strict=True) for number in ladder.holding(step)}
        device_type = self._readings.device_type
        known = (
            *watches.of_device(self._work.partition, device_type, device_id),
            *self._work.alive(device_type, device_id),
        )
        numbers = (column.numbers[rule_id] for rule_id in known if rule_id in column.numbers)
        found.update(number for number in numbers if column.is_for(number, device_id))
        return found


def _bounds(ladders: list[Ladder], steps: list[int]) -> tuple[float, float]:
    """From which value to which all ladders are on these steps."""
    if len(ladders) == 1:
        return ladders[0].bounds(steps[0])
    bounds = [ladder.bounds(step) for ladder, step in zip(ladders, steps, strict=True)]
    return max((low for low, _ in bounds), default=-inf), min((high for _, high in bounds), default=inf)
