"""`docs/performance.md`: a benchmark report as a page. The same report gives the same page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.cli.bench_compare import taken
from headrace.cli.bench_figures import FOLDER
from headrace.cli.bench_view import bounds, number, spread_of

#: What was tried and did not help; kept by hand.
TRIED = FOLDER / "tried.md"
#: A machine with more to do than this share of its cores, before the benchmark began, is not quiet.
QUIET = 0.3
PICTURES = {
    "throughput": "Throughput: blue is what is measured, grey what it is compared with; ratios are to the first bar;"
    " the line goes from the slowest to the fastest run.",
    "latency": "Latency over load: an open loop, counted from when a message was due.",
    "scaling": "What grows with what; the band goes from the lowest to the highest run.",
}


def page_of(report: Mapping[str, Any], pictures: str = "performance") -> str:
    """The page.

    Args:
        report: see `headrace bench --json`.
        pictures: folder of the pictures, from the page.
    """
    return "\n".join([*_head(report), *_pictures(report, pictures), *_figures(report), *_cost(report),
                      *_profile(report), TRIED.read_text().rstrip(), ""])  # fmt: skip


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = report["machine"], report["versions"]
    yield "# Performance"
    yield ""
    yield "Made from [performance.json](performance.json) by `headrace bench`; do not edit. All anew, in hours:"
    yield ""
    yield "```"
    yield "headrace bench --full --json docs/performance.json --page docs/performance.md"
    yield "```"
    yield ""
    yield "| | |"
    yield "|---|---|"
    cores = f"{machine['cores']} cores ({machine['architecture']})"
    yield f"| processor | {machine['cpu']}, {cores}, governor {machine['governor'] or 'unknown'} |"
    yield f"| memory | {machine['memory_bytes'] / (1 << 30):.0f} GiB |"
    yield f"| kernel | {machine['kernel']} |"
    yield f"| versions | {', '.join(f'{name} {version}' for name, version in versions.items())} |"
    yield ""
    yield (
        "How it is measured: each run is a process of its own, and variants take turns, so that a slow minute hits all"
        " of them; the first run of each warms up and does not count, except where a run is long or warms itself up."
        " Medians; the spread is highest less lowest as a share of the median; the ratio is the median of the ratios of"
        " each turn. Servers (Kafka, Mosquitto, PostgreSQL) run on the same cores. Two reports beside each other, with"
        " what is within their noise: `headrace bench --compare FILE`. `headrace` and `python` are those of"
        " `.venv/bin`, in the root of a clone."
    )
    yield ""
    if report["handicap"]:
        share = f"{report['handicap']:.0%}"
        yield f"**With a handicap of {share} on everything but baselines: a test of the budget, no figures.**"
        yield ""
    measured = {result["name"] for result in report["figures"]}
    missing = [f"`{name}`" for name in report.get("listed", ()) if name not in measured]
    if missing:
        yield f"Not in this report, though `headrace bench NAME` measures them: {', '.join(missing)}."
        yield ""


def _pictures(report: Mapping[str, Any], folder: str) -> Iterator[str]:
    for name in pictures_of(report):
        yield f"![{PICTURES[name]}]({folder}/{name}.svg)"
        yield ""


def pictures_of(report: Mapping[str, Any]) -> list[str]:
    """Names of the pictures that the report has figures for."""
    kinds = set()
    for each in report["figures"]:
        if each["axis"]:
            kinds.add("latency" if each["unit"] == "ms" else "scaling")
        elif "/s" in each["unit"]:
            kinds.add("throughput")
    return [name for name in PICTURES if name in kinds]


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## Figures"
    yield ""
    busy = QUIET * report["machine"]["cores"]
    for result in report["figures"]:
        yield f"### {result['name']}"
        yield ""
        yield f"{result['about'][:1].upper()}{result['about'][1:]}."
        yield ""
        yield f"Payload: {result['payload']}. Guarantee: {result['guarantee']}."
        if result["limit"]:
            yield ""
            yield f"What limits it: {result['limit']}"
        yield ""
        yield f"| {result['axis'] or 'Variant'} | {result['unit']} | Spread | Ratio | Must be | Also |"
        yield "|---|---|---|---|---|---|"
        for variant, summary in result["variants"].items():
            yield _row(result, variant, summary)
        yield ""
        outside = "" if result["within_budget"] else " **Outside the budget.**"
        again = (
            " Some ratio was out of its bounds at first: more runs followed, all count." if result["retried"] else ""
        )
        form = "" if result["form"] == "full" else f" ({result['form']} form)"
        yield f"{taken(result)}{form}: `{_command(result)}`; one run: `{_one(result)}`.{again}{outside}"
        if result["load_before"] > busy:
            yield ""
            yield (
                f"**The machine had other work to do then (load {result['load_before']}): ratios say something, times"
                " do not.**"
            )
        yield ""


def _row(result: Mapping[str, Any], variant: str, summary: Mapping[str, Any]) -> str:
    if summary["median"] is None:
        return f"| {variant} | | | | | cannot: {summary['cannot']} |"
    base = " (baseline)" if variant == result["baseline"] else ""
    ratio = f"{number(summary['ratio'])}×" if "ratio" in summary else ""
    return (
        f"| {_name(result, variant)}{base} | {number(summary['median'])}"
        f" | {spread_of(summary)} | {ratio} | {bounds(summary)}"
        f" | {', '.join(_details(summary))} |"
    )


def _name(result: Mapping[str, Any], variant: str) -> str:
    return f"{int(variant):,}" if result["axis"] else variant


#: Keys of a summary that are not from the script.
OWN = {"median", "spread", "values", "ratio", "ratios", "within_budget", "least_ratio", "most_ratio", "command"}


def _details(summary: Mapping[str, Any]) -> Iterator[str]:
    """What else the script said; of peers which version, and how configured."""
    yield from (str(summary[key]) for key in ("version", "configuration") if summary.get(key))
    for key, value in summary.items():
        if key not in OWN and isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{key} {number(value)}"


def _one(result: Mapping[str, Any]) -> str:
    """Command of the last variant that could do the job."""
    every = list(result["variants"].values())
    return str(([each for each in every if each["median"] is not None] or every)[-1]["command"])


def _command(result: Mapping[str, Any]) -> str:
    """What measures the figure anew, by the same form and as many runs as there were before any more."""
    count = max(len(each["values"]) for each in result["variants"].values())
    runs = count // 3 if result["retried"] else count  # once, and then twice as many
    short = " --short" if result["form"] == "short" else ""
    return f"headrace bench {result['name']}{short} --runs {runs}"


def _cost(report: Mapping[str, Any]) -> Iterator[str]:
    """CPU seconds and bytes of memory per million messages, of every figure that knows."""
    rows = []
    for result in report["figures"]:
        for variant, summary in result["variants"].items():
            cpu, grown = summary.get("cpu_us_per_message"), summary.get("bytes_per_million")
            if cpu is not None or grown is not None:
                seconds = number(cpu) if cpu is not None else ""
                memory = f"{grown / 1e6:,.1f} MB" if grown is not None else ""
                rows.append(f"| {result['name']} | {_name(result, variant)} | {seconds} | {memory} |")
    if rows:
        yield "## What a million messages cost"
        yield ""
        yield "CPU of the process that is measured, without servers; memory that it grew by in the run's second half."
        yield ""
        yield "| Figure | Variant | CPU seconds | Memory |"
        yield "|---|---|---|---|"
        yield from rows
        yield ""


def _profile(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("profile")
    if not found:
        return
    yield "## Where the time goes"
    yield ""
    yield "The whole path, log → agents → PostgreSQL, all threads of the process, without its start:"
    yield ""
    yield "```"
    yield found["command"]
    yield "```"
    yield ""
    yield f"{found['samples']:,} samples. By the innermost file of headrace on the stack, libraries included:"
    yield ""
    yield "| File | Share |"
    yield "|---|---|"
    for name, share in found["parts"]:
        yield f"| `{name}` | {share:.1%} |" if _is_ours(name) else f"| {name} | {share:.1%} |"
    yield ""
    yield "By function, without what it calls:"
    yield ""
    yield "| Function | Share |"
    yield "|---|---|"
    for name, share in found["functions"]:
        yield f"| {name.replace('<', '‹').replace('>', '›').replace('|', '/')} | {share:.1%} |"
    yield ""


def _is_ours(name: str) -> bool:
    return name.startswith("headrace/") and (FOLDER.parent / Path(name)).exists()
