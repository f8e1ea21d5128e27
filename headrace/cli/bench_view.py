"""Benchmarks as tables, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def verdict(result: Mapping[str, Any]) -> str:
    """What is within the budget of a figure, and what is not, in a line."""
    parts = [
        f"{name} {number(summary['ratio'])}× ({bounds(summary)})"
        for name, summary in result["variants"].items()
        if bounds(summary)
    ]
    word = "within budget" if result["within_budget"] else "OUTSIDE BUDGET"
    again = ", after more runs" if result["retried"] else ""
    return f"{word}{again}: {', '.join(parts)}" if parts else "measured, not judged"


def bounds(summary: Mapping[str, Any]) -> str:
    """Bounds of a variant, as in `≥ 2×`."""
    low, high = summary.get("least_ratio"), summary.get("most_ratio")
    return ", ".join(
        text for text in (f"≥ {low:g}×" if low is not None else "", f"≤ {high:g}×" if high is not None else "") if text
    )


def show(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A table per figure."""
    for result in results:
        judged = any(map(bounds, result["variants"].values()))
        word = "[green]within budget[/]" if judged else "not judged"
        word = word if result["within_budget"] else "[red]outside budget[/]"
        again = " (after more runs)" if result["retried"] else ""
        table = Table(title=f"{result['name']}: {result['about']} — {word}{again}", title_justify="left")
        for name in ("variant", f"median {result['unit']}", "spread", "ratio", "bounds"):
            table.add_column(name, justify="left" if name == "variant" else "right")
        for variant, summary in result["variants"].items():
            if summary["median"] is None:
                table.add_row(variant, "", "", "", str(summary["cannot"]))
                continue
            ratio = f"{number(summary['ratio'])}×" if "ratio" in summary else ""
            if not summary.get("within_budget", True):
                ratio = f"[red]{ratio}[/]"
            table.add_row(variant, number(summary["median"]), spread_of(summary), ratio, bounds(summary))
        console.print(table)


def show_profile(found: Mapping[str, Any], console: Console) -> None:
    """Where the time goes, by part."""
    table = Table(title=f"{found['samples']:,} samples of {found['command']}", title_justify="left")
    table.add_column("innermost file of headrace")
    table.add_column("share", justify="right")
    for name, share in found["parts"]:
        table.add_row(name, f"{share:.1%}")
    console.print(table)


def spread_of(summary: Mapping[str, Any]) -> str:
    """How far runs are apart, and how many they are; one run does not say."""
    count = len(summary["values"])
    return f"{summary['spread']:.0%} of {count}" if count > 1 else "one run"


def number(value: float) -> str:
    """With as many digits as say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.3g}"
