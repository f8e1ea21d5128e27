"""`headrace bench`: runs benchmarks and their baselines in turns, and judges the ratio, never the time."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from headrace.cli.bench_compare import load_report, show_changes
from headrace.cli.bench_figures import FOLDER, Figure, Form, chosen, load_figures
from headrace.cli.bench_machine import ROOT
from headrace.cli.bench_page import page_of
from headrace.cli.bench_profile import MESSAGES, profile, py_spy
from headrace.cli.bench_progress import BenchProgress, Expectation
from headrace.cli.bench_report import Report
from headrace.cli.bench_runs import RUNS, How, Runner
from headrace.cli.bench_view import show
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError

#: The report that docs/performance.md is made from.
STORED = ROOT / "docs" / "performance.json"

file_type = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


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
@click.option("--short", "form", flag_value="short", default="short", help="The form without options; minutes.")
@click.option("--runs", type=click.IntRange(min=1), help=f"Measured runs per variant. Default: {RUNS['short']}, "
              f"of named figures and with --full {RUNS['full']}.")  # fmt: skip
@click.option("--json", "report_file", type=file_type, is_flag=False, flag_value="-", metavar="FILE",
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
    form: Form,
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
    how = How("full" if names else form, runs, handicap)
    selected = chosen(figures, names, how.form)
    if only_list:
        for figure in figures.values() if not names else selected:
            click.echo(f"{figure.name:22} {figure.form:6} {figure.about}")
        return
    old = load_report(compare) if compare else None
    profiled |= form == "full" and not names
    _check_tools(plot is not None or page is not None, profiled)
    if report:
        found = load_report(report)
    else:
        kept = Report(report_file, SystemClock(), handicap, list(figures), add=add)
        measure(selected, how, SystemClock(), kept)
        if profiled:
            kept.take_profile(profile(MESSAGES[how.form]))
        found = kept.content
    _write(found, old, report_file, plot, page)
    if not all(result["within_budget"] for result in found["figures"]):
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


def _write(
    found: dict[str, Any], old: dict[str, Any] | None, report_file: Path | None, plot: Path | None, page: Path | None
) -> None:
    to_stdout = report_file is not None and str(report_file) == "-"
    console = Console(stderr=to_stdout)
    if to_stdout:
        click.echo(json.dumps(found, ensure_ascii=False))
    show(found["figures"], console)
    if old is not None:
        show_changes(old, found, console)
    if page is not None:
        pictures = page.with_suffix("")
        page.write_text(page_of(found, pictures.name))
        console.print(f"wrote {page}")
    for folder in (plot, page.with_suffix("") if page else None):
        if folder is not None:
            from headrace.cli.bench_plot import write_plots  # noqa: PLC0415

            for file in write_plots(found, folder):
                console.print(f"wrote {file}")
