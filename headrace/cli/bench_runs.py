"""Runs of a figure: one process each, variants in turns, once more when a ratio is out of its bounds."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from headrace.cli.bench_figures import FOLDER, Figure, Form
from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError

#: How long a run that is interrupted may take to end its servers.
STOP_SECONDS = 20

#: Runs of each variant that count; one before them warms up.
RUNS = {"short": 3, "full": 5}


class How(NamedTuple):
    """What all runs have in common.

    Args:
        form: decides on sizes.
        runs: of each variant that count; those of figure or form if None.
        handicap: share by which everything but baselines is delayed, 0.2 for a fifth.
    """

    form: Form = "full"
    runs: int | None = None
    handicap: float = 0.0

    def runs_of(self, figure: Figure) -> int:
        """Runs of each of its variants that count."""
        own = figure.runs if self.form == "full" else figure.short_runs or figure.runs
        return self.runs or own or RUNS[self.form]


@dataclass(slots=True)
class Measured:
    """Values of one variant in the order measured, and what else its script said in each run."""

    values: list[float] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    cannot: str | None = None

    def take(self, output: dict[str, Any], key: str) -> None:
        """Note the output of a run whose value is under `key`.

        Raises:
            HeadraceError: it has no value.
        """
        if "cannot" in output:
            self.cannot = str(output["cannot"])
            return
        if key not in output:
            raise HeadraceError(f"the output has no {key!r}: {output}")
        others = dict(output)
        self.values.append(float(others.pop(key)))
        self.others.append(others)

    def summary(self) -> dict[str, Any]:
        """Median, spread (highest less lowest, as a share of the median), values, and medians of what else there is."""
        if not self.values:
            return {"median": None, "spread": None, "values": [], "cannot": self.cannot}
        details = {key: _middle([each[key] for each in self.others if key in each]) for key in self.others[-1]}
        return {
            **details,
            "median": statistics.median(self.values),
            "spread": spread(self.values),
            "values": self.values,
        }


def spread(values: list[float]) -> float:
    """Highest less lowest, as a share of the median."""
    median = statistics.median(values)
    return (max(values) - min(values)) / abs(median) if median else 0.0


def _middle(found: list[Any]) -> Any:
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in found):
        return statistics.median(found)
    return found[-1]


#: Called before a run with figure, variant, turn (0 warms up) and runs in a turn of turns.
OnRun = Callable[[Figure, str, int, bool], None]
#: Called after it with its seconds.
OnDone = Callable[[Figure, str, float], None]


class Runner:
    """Measures figures.

    Args:
        how: see there.
        clock: for how long a run takes.
        before, after: told of every run.
    """

    def __init__(self, how: How, clock: Clock, before: OnRun, after: OnDone) -> None:
        self._how = how
        self._clock = clock
        self._before = before
        self._after = after

    def result(self, figure: Figure) -> dict[str, Any]:
        """A figure as the report has it.

        When a ratio is out of its bounds, twice as many runs follow, and all of them count: on a machine that does
        other work too, three runs may be unlucky together.

        Raises:
            HeadraceError: a run failed or took too long.
        """
        began = self._clock.monotonic()
        measured = {variant: Measured() for variant in figure.variants}
        runs = self._how.runs_of(figure)
        self._turns(figure, measured, runs, again=False)
        found = judge(figure, measured)
        if not found["within_budget"]:
            self._turns(figure, measured, 2 * runs, again=True)
            found = {**judge(figure, measured), "retried": True}
        commands = {variant: figure.command(variant, self._how.form) for variant in figure.variants}
        for variant, summary in found["variants"].items():
            summary["command"] = " ".join(["python", f"benchmarks/{commands[variant][0]}", *commands[variant][1:]])
        return {**found, "seconds": round(self._clock.monotonic() - began, 1)}

    def _turns(self, figure: Figure, measured: Mapping[str, Measured], runs: int, *, again: bool) -> None:
        for turn in range(1 if again or not figure.warm_up else 0, runs + 1):
            for variant, found in measured.items():
                self._before(figure, variant, turn, again)
                began = self._clock.monotonic()
                output = self._run(figure, variant)
                self._after(figure, variant, self._clock.monotonic() - began)
                if turn or "cannot" in output:
                    found.take(output, figure.value)

    def _run(self, figure: Figure, variant: str) -> dict[str, Any]:
        script, *arguments = figure.command(variant, self._how.form)
        command = [sys.executable, str(FOLDER / script), *arguments]
        if self._how.handicap and variant != figure.baseline:
            command[1:1] = [str(FOLDER / "handicapped.py"), str(self._how.handicap)]
        what = f"{figure.name} {variant}"
        try:
            with _scratch() as environment:
                code, said, wrong = _finish(command, environment, figure.most_seconds)
            if code:
                raise HeadraceError(f"{what} failed:\n{wrong[-2000:]}")
            output = json.loads(said.splitlines()[-1])
        except subprocess.TimeoutExpired as error:
            raise HeadraceError(f"{what} took more than {figure.most_seconds:g} s") from error
        except (ValueError, IndexError) as error:
            raise HeadraceError(f"{what} printed no result") from error
        if not isinstance(output, dict):
            raise HeadraceError(f"{what} printed no result")
        return output


def _finish(command: list[str], environment: Mapping[str, str], most_seconds: float) -> tuple[int, str, str]:
    """Exit code, standard output and error of a run.

    One that takes too long, or is in the way of a stop, is interrupted first: it ends its servers, which a killed one
    leaves behind, PostgreSQL in a session of its own.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        said, wrong = process.communicate(timeout=most_seconds)
    except BaseException:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=STOP_SECONDS)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, said, wrong


@contextlib.contextmanager
def _scratch() -> Iterator[dict[str, str]]:
    """An environment whose folder for temporary files is removed with all that a run leaves there.

    That is more than its own: what PostgreSQL keeps elsewhere for root, Kafka's logs if the run was killed.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield {**os.environ, "TMPDIR": folder}


def judge(figure: Figure, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """What was measured, with ratios: of a turn to the baseline in the same turn, and the median of those."""
    base = measured[figure.baseline].values
    variants: dict[str, dict[str, Any]] = {}
    within = True
    for variant, found in measured.items():
        variants[variant] = summary = found.summary()
        ratios = [value / other for value, other in zip(found.values, base, strict=False) if other]
        if not ratios:
            continue
        low, high = figure.bounds(variant)
        summary["ratio"] = ratio = statistics.median(ratios)
        summary["ratios"] = ratios
        summary["within_budget"] = (low is None or ratio >= low) and (high is None or ratio <= high)
        within &= summary["within_budget"]
        if low is not None:
            summary["least_ratio"] = low
        if high is not None:
            summary["most_ratio"] = high
    plain = ("name", "about", "unit", "payload", "guarantee", "limit", "better", "baseline", "axis", "points")
    return {
        **{key: getattr(figure, key) for key in plain},
        "variants": variants,
        "within_budget": within,
        "retried": False,
    }
