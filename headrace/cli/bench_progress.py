"""Progress of benchmarks: what runs, and how long all of it will take."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.bench_figures import Figure
from headrace.cli.bench_runs import How
from headrace.cli.bench_view import verdict

#: A run that nobody has seen yet, seconds.
GUESS = 5.0


class Expectation:
    """Seconds that are left, from how long the runs of each figure took: now, or when a stored report was made.

    Args:
        figures: to be run.
        how: decides on how often.
        before: figures of a stored report, by name.
    """

    def __init__(self, figures: Sequence[Figure], how: How, before: Mapping[str, Any]) -> None:
        self._left = {figure.name: len(figure.variants) * (how.runs_of(figure) + figure.warm_up) for figure in figures}
        self._took: dict[str, list[float]] = {}
        self._before = {
            name: found["seconds"] / max(1, sum(len(each["values"]) + 1 for each in found["variants"].values()))
            for name, found in before.items()
        }

    @property
    def runs(self) -> int:
        """Runs that are left."""
        return sum(self._left.values())

    def more(self, name: str, runs: int) -> None:
        """A figure is run again."""
        self._left[name] += runs

    def done(self, name: str, seconds: float) -> None:
        """A run of a figure is over."""
        self._left[name] -= 1
        self._took.setdefault(name, []).append(seconds)

    def seconds(self) -> float:
        """Seconds that are left."""
        return sum(runs * self._one(name) for name, runs in self._left.items())

    def _one(self, name: str) -> float:
        took = self._took.get(name)
        if took:
            return sum(took) / len(took)
        return float(self._before.get(name, GUESS))


class BenchProgress:
    """A bar on a terminal; elsewhere a line when a figure is done."""

    def __init__(self, expected: Expectation, how: How, console: Console) -> None:
        self._expected = expected
        self._how = how
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("about {task.fields[left]} left"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=expected.runs, left=duration(expected.seconds()))

    def __enter__(self) -> "BenchProgress":
        self._progress.start()
        if not self._console.is_terminal:
            self._print(f"{self._expected.runs} runs, about {duration(self._expected.seconds())}")
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def before(self, figure: Figure, variant: str, turn: int, again: bool) -> None:
        """A run begins."""
        if again and turn == 1 and variant == next(iter(figure.variants)):
            more = 2 * self._how.runs_of(figure) * len(figure.variants)
            self._expected.more(figure.name, more)
            total = self._progress.tasks[0].total or 0
            self._progress.update(self._task, total=total + more)
            self._print(f"{figure.name}: a ratio is out of its bounds; {more} more runs")
        note = "" if turn else " (warm-up)"
        self._progress.update(self._task, description=f"{figure.name} {variant}{note}")

    def after(self, figure: Figure, _variant: str, seconds: float) -> None:
        """A run is over."""
        self._expected.done(figure.name, seconds)
        self._progress.update(self._task, advance=1, left=duration(self._expected.seconds()))

    def figure_done(self, result: Mapping[str, Any]) -> None:
        """A figure is done."""
        left = f"; about {duration(self._expected.seconds())} left" if self._expected.runs else ""
        self._print(f"{result['name']}: {verdict(result)}, {result['seconds']:.0f} s{left}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """For people: `45 s`, `12 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
