"""`headrace bench`: runs a benchmark and its baseline in turns, and judges the ratio, never the time."""

import json
import platform
import statistics
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import headrace
from headrace.engine.errors import ConfigError, HeadraceError

#: Beside the package in a clone.
FOLDER = Path(headrace.__file__).parent.parent / "benchmarks"
#: Runs of each variant that count; one before them warms up.
RUNS = 5
MOST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of `benchmarks/budget.toml`.

    Args:
        script: file in the benchmarks folder; prints `{"value": number}` for one run of one variant.
        unit: of the value.
        variants: arguments of the script by variant.
        baseline: the variant that ratios are against.
        least_ratio, most_ratio: bounds of measured ÷ baseline, medians, for every other variant.
    """

    name: str
    about: str
    script: str
    unit: str
    baseline: str
    variants: dict[str, list[str]]
    least_ratio: float | None = None
    most_ratio: float | None = None


@dataclass(slots=True)
class Measured:
    """Values of one variant, in the order they were measured, and what else its script said in the last run."""

    values: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Median, spread (highest less lowest, as a share of the median) and values."""
        median = statistics.median(self.values)
        spread = (max(self.values) - min(self.values)) / median if median else 0.0
        return {"median": median, "spread": spread, "values": self.values, **self.details}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--runs", type=click.IntRange(min=1), default=RUNS, show_default=True, help="Measured runs per variant.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
@click.option("--list", "only_list", is_flag=True, help="List the benchmarks and stop.")
def bench(names: tuple[str, ...], runs: int, as_json: bool, only_list: bool) -> None:
    """Run benchmarks (all, or NAMES) beside their baselines.

    Each run is a process of its own; variants take turns, so that a slow minute of the machine hits all of them.
    Exits with 1 when a ratio is outside the bounds in benchmarks/budget.toml.
    """
    figures = load_figures(FOLDER / "budget.toml")
    unknown = [name for name in names if name not in figures]
    if unknown:
        raise ConfigError(f"no benchmark named {', '.join(unknown)}; there are {', '.join(figures)}")
    chosen = [figures[name] for name in names] or list(figures.values())
    if only_list:
        for figure in chosen:
            click.echo(f"{figure.name:12} {figure.about}")
        return
    results = [_result(figure, measure(figure, runs)) for figure in chosen]
    if as_json:
        click.echo(json.dumps({"machine": _machine(), "figures": results}))
    else:
        _show(results)
    if not all(result["within_budget"] for result in results):
        sys.exit(1)


def load_figures(path: Path) -> dict[str, Figure]:
    """The figures of a budget file, by name.

    Raises:
        ConfigError: the file is not there, or every mistake in it.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there: benchmarks run from a clone of the repository")
    found: dict[str, Figure] = {}
    wrong: list[str] = []
    for name, table in tomllib.loads(path.read_text()).items():
        try:
            found[name] = Figure(name=name, **table)
        except TypeError as error:
            wrong.append(f"{path}: {name}: {error}")
    if wrong:
        raise ConfigError(*wrong)
    return found


def measure(figure: Figure, runs: int) -> dict[str, Measured]:
    """Warm up each variant once, then run them in turns."""
    measured = {variant: Measured() for variant in figure.variants}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(figure.name, total=(runs + 1) * len(measured))
        for turn in range(runs + 1):
            for variant, found in measured.items():
                progress.update(task, description=f"{figure.name} {variant}{' (warm-up)' if not turn else ''}")
                output = _run(figure, variant)
                if turn:
                    found.values.append(float(output.pop("value")))
                    found.details = output
                progress.advance(task)
    return measured


def _run(figure: Figure, variant: str) -> dict[str, Any]:
    command = [sys.executable, str(FOLDER / figure.script), *figure.variants[variant]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=True)
        output: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise HeadraceError(f"{figure.name} {variant} failed:\n{error.stderr[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise HeadraceError(f"{figure.name} {variant} took more than {MOST_SECONDS} s") from error
    except (ValueError, IndexError) as error:
        raise HeadraceError(f"{figure.name} {variant} printed no result") from error
    return output


def _result(figure: Figure, measured: dict[str, Measured]) -> dict[str, Any]:
    variants = {variant: found.summary() for variant, found in measured.items()}
    base = variants[figure.baseline]["median"]
    within = True
    for variant, summary in variants.items():
        summary["ratio"] = ratio = summary["median"] / base if base else float("nan")
        if variant != figure.baseline:
            low, high = figure.least_ratio, figure.most_ratio
            within &= (low is None or ratio >= low) and (high is None or ratio <= high)
    return {
        "name": figure.name,
        "about": figure.about,
        "unit": figure.unit,
        "baseline": figure.baseline,
        "least_ratio": figure.least_ratio,
        "most_ratio": figure.most_ratio,
        "variants": variants,
        "within_budget": within,
    }


def _show(results: list[dict[str, Any]]) -> None:
    console = Console()
    for result in results:
        bounds = [f"≥ {result['least_ratio']:g}×"] if result["least_ratio"] is not None else []
        bounds += [f"≤ {result['most_ratio']:g}×"] if result["most_ratio"] is not None else []
        verdict = "[green]within budget[/]" if result["within_budget"] else "[red]outside budget[/]"
        table = Table(
            title=f"{result['name']}: {result['about']} — {verdict} ({', '.join(bounds)})", title_justify="left"
        )
        for name in ("variant", f"median {result['unit']}", "spread", "ratio"):
            table.add_column(name, justify="left" if name == "variant" else "right")
        for variant, summary in result["variants"].items():
            table.add_row(variant, f"{summary['median']:,.1f}", f"{summary['spread']:.0%}", f"{summary['ratio']:.2f}×")
        console.print(table)


def _machine() -> dict[str, Any]:
    names = ("faust-streaming", "orjson", "numpy", "asyncpg")
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "headrace": headrace.__version__,
        "packages": {name: version(name) for name in names},
    }
