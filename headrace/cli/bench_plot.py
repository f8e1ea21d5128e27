"""Pictures of a benchmark report, as SVG: throughput with ratios, latency over load, what grows with what."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from headrace.cli.bench_view import number

OURS, THEIRS = "#1f77b4", "#b0b0b0"
#: The same report gives the same bytes.
FIXED: dict[Any, Any] = {"svg.hashsalt": "headrace", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False}  # fmt: skip
#: Percentiles of a latency, by the key of a script's output.
PERCENTILES = {"p50_ms": "p50", "p90_ms": "p90", "median": "p99", "p999_ms": "p99.9"}
ACROSS = 2


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write what the report has figures for; the files.

    Raises:
        OSError: the folder cannot be written.
    """
    curves = [each for each in report["figures"] if each["axis"]]
    bars = [each for each in report["figures"] if not each["axis"] and "/s" in each["unit"]]
    latency = [each for each in curves if each["unit"] == "ms"]
    pictures = {
        "throughput": (bars, _bars),
        "latency": (latency, _latency),
        "scaling": ([each for each in curves if each["unit"] != "ms"], _curve),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (figures, draw) in pictures.items():
        if figures:
            written.append(folder / f"{name}.svg")
            with mpl.rc_context(FIXED):
                _picture(report, figures, draw).savefig(written[-1], metadata={"Date": None})
    return written


def _picture(report: Mapping[str, Any], figures: Sequence[Mapping[str, Any]], draw: Any) -> Canvas:
    across = min(ACROSS, len(figures))
    down = ceil(len(figures) / across)
    canvas = Canvas(figsize=(5.2 * across, 2.9 * down + 0.4), layout="constrained")
    places = canvas.subplots(down, across, squeeze=False).ravel()
    for place, figure in zip(places, figures, strict=False):
        place.set_title(figure["name"], loc="left", fontweight="bold")
        draw(place, figure)
    for place in places[len(figures) :]:
        place.set_visible(False)
    machine = report["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}"
    days = sorted({figure["taken"][:10] for figure in figures})
    canvas.supxlabel(f"{where}; {' to '.join([days[0], *days[1:][-1:]])}", fontsize=7, color="#606060")
    return canvas


def _bars(place: Axes, figure: Mapping[str, Any]) -> None:
    """A bar per variant, lowest and highest run as a line, the ratio beside it."""
    measured = {name: each for name, each in figure["variants"].items() if each["median"] is not None}
    names = list(measured)[::-1]
    medians = [measured[name]["median"] for name in names]
    low = [median - min(measured[name]["values"]) for name, median in zip(names, medians, strict=True)]
    high = [max(measured[name]["values"]) - median for name, median in zip(names, medians, strict=True)]
    # Peers stand beside headrace: there the baseline is ours.
    ours = figure["baseline"].startswith("headrace")
    colours = [OURS if (name == figure["baseline"]) == ours else THEIRS for name in names]
    place.barh(names, medians, xerr=[low, high], color=colours, ecolor="#404040", capsize=2)
    for row, name in enumerate(names):
        ratio = f" ({number(measured[name]['ratio'])}×)" if name != figure["baseline"] else ""
        place.annotate(
            f"{number(medians[row])}{ratio}", (max(measured[name]["values"]), row), (6, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    place.set_xlim(0, 1.45 * max(max(each["values"]) for each in measured.values()))
    place.xaxis.set_major_formatter(lambda value, _: number(value) if value else "0")
    place.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    place.set_xlabel(figure["unit"])


def _points(figure: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    found = ((point, figure["variants"][str(point)]) for point in figure["points"])
    return [(point, each) for point, each in found if each["median"] is not None]


def _latency(place: Axes, figure: Mapping[str, Any]) -> None:
    """A line per percentile."""
    points = _points(figure)
    for key, label in PERCENTILES.items():
        if all(key in each for _, each in points):
            place.plot([point for point, _ in points], [each[key] for _, each in points], "o-", label=label)
    place.set_ylim(bottom=0)
    place.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    place.set_xticks([point for point, _ in points])
    place.set_xlabel(figure["axis"])
    place.set_ylabel(figure["unit"])
    place.legend(frameon=False)


def _curve(place: Axes, figure: Mapping[str, Any]) -> None:
    """Median, and lowest to highest run as a band."""
    points = _points(figure)
    where = [point for point, _ in points]
    place.fill_between(
        where, [min(each["values"]) for _, each in points], [max(each["values"]) for _, each in points],
        color=OURS, alpha=0.2, linewidth=0,
    )  # fmt: skip
    place.plot(where, [each["median"] for _, each in points], "o-", color=OURS)
    place.set_xscale("log")
    place.set_xticks(where, [f"{point:,}" for point in where])
    place.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    place.set_ylim(bottom=0)
    place.yaxis.set_major_formatter(lambda value, _: number(value) if value else "0")
    place.set_xlabel(figure["axis"])
    place.set_ylabel(figure["unit"])
