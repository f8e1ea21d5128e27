"""Two benchmark reports beside each other: what changed by more than the runs differ among themselves."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from headrace.cli.bench_runs import spread
from headrace.cli.bench_view import number
from headrace.engine.errors import ConfigError

FORMAT = 2


class Change(NamedTuple):
    """A variant in two reports.

    Args:
        old, new: medians, in `unit`.
        old_spread, new_spread: shares of the median.
        what: `ratio` to the baseline, which other work on the machine moves less, or `value`.
        change: of `what`; 0.1 is 10 % more.
        noise: half of both spreads of `what`, added: the medians of two runs of the same may differ by as much.
        judgement: `within noise`, `better` or `worse`.
    """

    figure: str
    variant: str
    unit: str
    old: float
    new: float
    old_spread: float
    new_spread: float
    what: str
    change: float
    noise: float
    judgement: str


def load_report(path: Path) -> dict[str, Any]:
    """A report that `--json` wrote.

    Raises:
        ConfigError: it is none, or of another format.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no report of `headrace bench --json`: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ConfigError(f"{path} is no report of format {FORMAT}; make one with `headrace bench --json {path}`")
    return report


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Every variant that both reports measured."""
    before = {result["name"]: result for result in old["figures"]}
    for result in new["figures"]:
        was = before.get(result["name"])
        for variant, summary in result["variants"].items():
            earlier = was["variants"].get(variant) if was else None
            if earlier and earlier["median"] is not None and summary["median"] is not None:
                yield _change(result, variant, earlier, summary)


def taken(result: Mapping[str, Any]) -> str:
    """On which day a figure was taken, and at which commit."""
    commit = (result["commit"] or "unknown")[:12]
    return f"{result['taken'][:10]}, {commit}{' with changes' if result['dirty'] else ''}"


def _change(result: Mapping[str, Any], variant: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    judged = variant != result["baseline"] and "ratios" in old and "ratios" in new
    what, key = ("ratio", "ratios") if judged else ("value", "values")
    middle = "ratio" if judged else "median"
    change = new[middle] / old[middle] - 1 if old[middle] else 0.0
    noise = (spread(old[key]) + spread(new[key])) / 2
    if abs(change) <= noise:
        judgement = "within noise"
    else:
        judgement = "better" if (change > 0) == (result["better"] == "more") else "worse"
    return Change(
        result["name"], variant, result["unit"], old["median"], new["median"], old["spread"], new["spread"],
        what, change, noise, judgement,
    )  # fmt: skip


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Why figures of the two reports may not be compared, in sentences; ratios may."""
    found = [
        f"{key}: {old['machine'].get(key)} before, {new['machine'].get(key)} now"
        for key in ("cpu", "cores", "memory_bytes", "kernel", "governor")
        if old["machine"].get(key) != new["machine"].get(key)
    ]
    before = {result["name"]: result for result in old["figures"]}
    for result in new["figures"]:
        form = before.get(result["name"], result)["form"]
        if form != result["form"]:
            found.append(f"{result['name']}: {form} form before, {result['form']} now: sizes may differ")
    for report, when in ((old, "before"), (new, "now")):
        if report["handicap"]:
            found.append(f"{when} with a handicap of {report['handicap']:.0%}")
    return found


def show_changes(old: Mapping[str, Any], new: Mapping[str, Any], console: Console) -> None:
    """A table of all changes, with the spread of both."""
    name = " and ".join(dict.fromkeys(map(taken, old["figures"]))) or "nothing"
    table = Table(title=f"compared with {name}", title_justify="left")
    for title in ("figure", "variant", "unit", "before", "now", "of", "change", "noise", ""):
        table.add_column(title, justify="right" if title in ("before", "now", "change", "noise") else "left")
    for each in changes(old, new):
        style = {"better": "green", "worse": "red"}.get(each.judgement, "dim")
        before, now = (f"{number(median)} ±{wide / 2:.0%}" for median, wide in (
            (each.old, each.old_spread), (each.new, each.new_spread)
        ))  # fmt: skip
        table.add_row(
            each.figure, each.variant, each.unit, before, now,
            each.what, f"{each.change:+.1%}", f"±{each.noise:.1%}", f"[{style}]{each.judgement}[/]",
        )  # fmt: skip
    console.print(table if table.row_count else f"nothing in common with {name}")
    for line in differences(old, new):
        console.print(f"[yellow]{line}[/]")
