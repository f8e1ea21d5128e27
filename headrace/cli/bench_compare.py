"""Two benchmark reports beside each other: what changed by more than the runs differ among themselves."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from rich.console import Console
from rich.table import Table

from headrace.cli.bench_figures import Form
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
        noise: half of both spreads of `what`, added: the medians of two runs of the same may differ by as much. None
            if one of the reports has a single run, which has no spread.
        judgement: `within noise`, `better`, `worse`, or `one run` where nobody knows.
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
    noise: float | None
    judgement: str


def load_report(path: Path) -> dict[str, Any]:
    """A report that `--json` wrote.

    Raises:
        ConfigError: it is none, of another format, or lacks something.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no report of `headrace bench --json`: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ConfigError(f"{path} is no report of format {FORMAT}; make one with `headrace bench --json {path}`")
    try:
        _Shape.model_validate(report)
    except ValidationError as error:
        places = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
        raise ConfigError(*(f"{path} is a broken report: {place}: {text}" for place, text in places)) from error
    return report


class _Summary(BaseModel):
    """What is read of a variant."""

    median: float | None
    spread: float | None
    values: list[float]
    ratios: list[float] = []


class _Result(BaseModel):
    """What is read of a figure; more is there."""

    name: str
    about: str
    unit: str
    payload: str
    guarantee: str
    limit: str
    better: Literal["more", "less"]
    baseline: str
    axis: str
    points: list[int]
    variants: dict[str, _Summary] = Field(min_length=1)
    within_budget: bool
    retried: bool
    seconds: float
    taken: str
    form: Form
    load_before: float
    commit: str | None
    dirty: bool


class _Shape(BaseModel):
    """What is read of a report, so that one that was cut or edited is refused before hours of measuring."""

    handicap: float
    machine: dict[str, Any]
    versions: dict[str, str]
    figures: list[_Result]


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
    lone = min(len(old[key]), len(new[key])) < 2
    noise = None if lone else (spread(old[key]) + spread(new[key])) / 2
    if noise is None:
        judgement = "one run"
    elif abs(change) <= noise:
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
    found += [
        f"{name}: {old['versions'].get(name, 'none')} before, {new['versions'].get(name, 'none')} now"
        for name in dict.fromkeys([*old["versions"], *new["versions"]])
        if old["versions"].get(name) != new["versions"].get(name)
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
    found = list(changes(old, new))
    if not found:
        console.print("compared: no figure in common")
    both = {each.figure for each in found}
    for result in (each for each in old["figures"] if each["name"] in both):
        # A table each: in one with columns for figure and unit nothing could be read on 80 columns.
        table = Table(title=f"{result['name']}, {result['unit']}: compared with {taken(result)}", title_justify="left")
        for title in ("variant", "before", "now", "change of", "noise", ""):
            right = title in ("before", "now", "change of", "noise")
            table.add_column(title, justify="right" if right else "left", no_wrap=title != "variant", overflow="fold")
        for each in (change for change in found if change.figure == result["name"]):
            style = {"better": "green", "worse": "red"}.get(each.judgement, "dim")
            noise = "?" if each.noise is None else f"±{each.noise:.1%}"
            table.add_row(each.variant, number(each.old), number(each.new), f"{each.what} {each.change:+.1%}", noise,
                          f"[{style}]{each.judgement}[/]")  # fmt: skip
        console.print(table)
    for line in differences(old, new):
        console.print(f"[yellow]{line}[/]")
