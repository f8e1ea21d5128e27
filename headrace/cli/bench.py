"""`headrace bench`: runs benchmarks and their baselines in turns, and judges the ratio, never the time."""

import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from headrace.cli.bench_compare import load_report, show_changes
from headrace.cli.bench_figures import FOLDER, Figure, Form, check_programs, chosen, load_figures
from headrace.cli.bench_machine import ROOT
from headrace.cli.bench_page import page_of
from headrace.cli.bench_profile import MESSAGES, profile, py_spy
from headrace.cli.bench_progress import BenchProgress, Expectation
from headrace.cli.bench_report import Report
from headrace.cli.bench_runs import RUNS, How, Runner
from headrace.cli.bench_view import show, show_profile
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError, HeadraceError

#: The report that docs/performance.md is made from.
STORED = ROOT / "docs" / "performance.json"

file_type = click.Path(path_type=Path, dir_okay=False)
file_or_stdout = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


class Share(click.ParamType):
    """`20%` or `0.2`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            text = str(value)
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 10:
            self.fail(f"{value!r} is no share: write 20% or 0.2", param, ctx)
        return share


@click.command()
@click.argument("names", nargs=-1)
@click.option("--full", "form", flag_value="full", help="Everything: curves, soak and peers too; hours.")
@click.option(
    "--short", "form", flag_value="short", help="The form without options; minutes. With NAMES: their smaller size."
)
@click.option("--runs", type=click.IntRange(min=1), help=f"Measured runs per variant. Default: {RUNS['short']}, "
              f"of named figures and with --full {RUNS['full']}.")  # fmt: skip
@click.option("--json", "report_file", type=file_or_stdout, is_flag=False, flag_value="-", metavar="FILE",
              help="Write the report as JSON; `-`, or nothing: to standard output, instead of the tables.")  # fmt: skip
@click.option("--add", is_flag=True, help="Keep what the file of --json holds of other figures.")
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Write pictures (SVG): throughput, latency, scaling.")  # fmt: skip
@click.option("--compare", type=file_type, metavar="FILE", help="Compare with a report that --json wrote.")
@click.option("--report", type=file_type, metavar="FILE", help="Measure nothing: show this report, plot, compare it.")
@click.option(
    "--page",
    type=file_type,
    metavar="FILE",
    help="Write the report as a Markdown page, with pictures in the folder beside it.",
)
@click.option("--profile", "profiled", is_flag=True, help="Profile the whole path with py-spy too; part of --full.")
@click.option("--handicap", type=Share(), default=0.0, metavar="SHARE",
              help="Delay everything but baselines by so much, as in 20%: to see that the budget notices.")  # fmt: skip
@click.option("--list", "only_list", is_flag=True, help="List the benchmarks and stop.")
def bench(
    names: tuple[str, ...],
    form: Form | None,
    runs: int | None,
    report_file: Path | None,
    add: bool,
    plot: Path | None,
    compare: Path | None,
    report: Path | None,
    page: Path | None,
    profiled: bool,
    handicap: float,
    only_list: bool,
) -> None:
    """Run benchmarks beside their baselines: the short form (minutes), or NAMES in full size.

    Each run is a process of its own; variants take turns, so that a slow minute of the machine hits all of them.
    Exits with 1 when a ratio is outside the bounds in benchmarks/budget.toml.
    """
    figures = load_figures(FOLDER / "budget.toml")
    how = How(form or ("full" if names else "short"), runs, handicap)
    selected = chosen(figures, names, how.form)
    if only_list:
        for figure in figures.values() if not names else selected:
            click.echo(f"{figure.name:22} {figure.form:6} {figure.about}")
        return
    old = load_report(compare) if compare else None
    if report and (names or form or runs or add or profiled or handicap or (report_file and str(report_file) != "-")):
        raise ConfigError(
            "--report measures nothing: beside it there may be --compare, --plot, --page and --json alone"
        )
    profiled |= form == "full" and not names
    _check_tools(plot is not None or page is not None, profiled)
    _check_places(report_file, page, plot)
    if not report:
        check_programs(selected)
    if report:
        found, fresh = load_report(report), None
    else:
        kept = Report(report_file, SystemClock(), handicap, list(figures), add=add)
        with _told_when_stopped():
            measure(selected, how, SystemClock(), kept)
            if profiled:
                kept.take_profile(profile(MESSAGES[how.form]))
        found, fresh = kept.content, {figure.name for figure in selected}
    try:
        _write(found, fresh, old, report_file, plot, page)
    except OSError as error:
        raise HeadraceError(f"{error.filename or 'the output'} cannot be written: {error.strerror}") from error
    if not all(result["within_budget"] for result in _new(found, fresh)):
        sys.exit(1)


def measure(figures: list[Figure], how: How, clock: Clock, report: Report) -> None:
    """Run all of them, into the report.

    Raises:
        HeadraceError: a run failed.
    """
    before = load_report(STORED)["figures"] if STORED.exists() else []
    expected = Expectation(figures, how, {result["name"]: result for result in before})
    with BenchProgress(expected, how, Console(stderr=True)) as progress:
        runner = Runner(how, clock, progress.before, progress.after)
        for figure in figures:
            result = runner.result(figure)
            report.take(result, how.form)
            progress.figure_done(result)


def _check_tools(pictures: bool, profiled: bool) -> None:
    """Say before hours of measuring what is missing afterwards."""
    if pictures and importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("pictures need matplotlib, which is for development: make setup")
    if profiled:
        py_spy()


def _check_places(report_file: Path | None, page: Path | None, plot: Path | None) -> None:
    """As `_check_tools`: of the files that will be written."""
    wrong = []
    for path in (report_file, page):
        if path is None or str(path) == "-":
            continue
        # A file is replaced by another one from its own folder; what is no file, a pipe for one, is written to.
        place = path.absolute().parent if path is report_file and (path.is_file() or not path.exists()) else path
        if not path.absolute().parent.is_dir():
            wrong.append(f"{path} cannot be written: there is no folder {path.absolute().parent}")
        elif not os.access(place if place.exists() else place.absolute().parent, os.W_OK):
            wrong.append(f"{path} cannot be written: {place} may not be written by you")
    for folder in (plot, page.with_suffix("") if page else None):
        if folder is None:
            continue
        there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        if not there.is_dir():
            wrong.append(f"{folder} is for pictures, but {there} is no folder")
        elif not os.access(there, os.W_OK):
            wrong.append(f"{folder} is for pictures, but {there} may not be written by you")
    if wrong:
        raise ConfigError(*wrong)


@contextlib.contextmanager
def _told_when_stopped() -> Iterator[None]:
    """Who stops benchmarks early has no verdict: the exit code is that of the signal, never 0."""

    def stop(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except SystemExit:
        click.echo("stopped: nothing is judged; a file of --json has the figures that were done", err=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _new(found: dict[str, Any], fresh: set[str] | None) -> list[dict[str, Any]]:
    """Figures that were measured now; what --add kept was shown and judged when it was measured."""
    return [each for each in found["figures"] if fresh is None or each["name"] in fresh]


def _write(
    found: dict[str, Any],
    fresh: set[str] | None,
    old: dict[str, Any] | None,
    report_file: Path | None,
    plot: Path | None,
    page: Path | None,
) -> None:
    to_stdout = report_file is not None and str(report_file) == "-"
    console = Console(stderr=to_stdout)
    if to_stdout:
        click.echo(json.dumps(found, ensure_ascii=False))
    show(_new(found, fresh), console)
    if found.get("profile") and page is None:
        show_profile(found["profile"], console)
    if old is not None:
        show_changes(old, {**found, "figures": _new(found, fresh)}, console)
    if page is not None:
        pictures = page.with_suffix("")
        page.write_text(page_of(found, pictures.name))
        console.print(f"wrote {page}")
    for folder in (plot, page.with_suffix("") if page else None):
        if folder is not None:
            from headrace.cli.bench_plot import write_plots  # noqa: PLC0415

            for file in write_plots(found, folder):
                console.print(f"wrote {file}")
