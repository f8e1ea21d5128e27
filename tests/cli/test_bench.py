"""`headrace bench`: what it runs, how it judges, and what it says about changes."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import bench as bench_command
from headrace.cli import bench_figures, bench_runs
from headrace.cli.bench_compare import changes, differences
from headrace.cli.bench_figures import FOLDER, Figure, chosen, load_figures
from headrace.cli.bench_page import page_of, pictures_of
from headrace.cli.bench_plot import write_plots
from headrace.cli.bench_profile import shares
from headrace.cli.bench_progress import Expectation, duration
from headrace.cli.bench_runs import How, Measured, judge
from headrace.engine.errors import ConfigError
from tests.cli.conftest import Headrace

#: Prints its arguments' number, more of it in every run: the file counts.
SCRIPT = """
import json, sys
from pathlib import Path
value, runs = float(sys.argv[1]), Path(__file__).with_name(f"runs-{sys.argv[2]}")
print("not the result")
before = int(runs.read_text()) if runs.exists() else 0
runs.write_text(str(before + 1))
print(json.dumps({"value": value + before, "cpu_us_per_message": 3, "bytes_per_million": 5e6}))
"""
BUDGET = """
[speed]
about = "what is fast, beside what is not"
script = "script.py"
unit = "messages/s"
payload = "nothing"
guarantee = "none"
least_ratio = {least}
form = "short"
runs = 2
[speed.variants]
slow = ["100", "slow"]
fast = ["1000", "fast"]

[growing]
about = "what grows"
script = "script.py"
unit = "ms"
payload = "nothing"
guarantee = "none"
axis = "devices"
points = [10, 1000]
arguments = ["{{}}", "{{}}"]
runs = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmarks folder with a script of two seconds' worth of nothing, and the budget `headrace bench` judges by."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "budget.toml").write_text(BUDGET.format(least=2.0))
    (tmp_path / "handicapped.py").write_text((FOLDER / "handicapped.py").read_text())
    for module in (bench_command, bench_runs, bench_figures):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(bench_command, "STORED", tmp_path / "none.json")
    return tmp_path


def figure(**more: Any) -> Figure:
    """A figure with two variants, as a budget file would have it."""
    given = {
        "name": "speed", "about": "speed", "script": "script.py", "unit": "messages/s", "payload": "nothing",
        "guarantee": "none", "variants": {"slow": [], "fast": []},
    }  # fmt: skip
    return Figure.model_validate({**given, **more})


def measured(**values: list[float]) -> dict[str, Measured]:
    """Variants with these values."""
    return {name: Measured(list(each), [{} for _ in each]) for name, each in values.items()}


def report(fast: list[float], slow: list[float], **more: Any) -> dict[str, Any]:
    """A report of one figure."""
    found = {**judge(figure(**more), measured(slow=slow, fast=fast)), "form": "short"}
    machine = {"cpu": "one", "cores": 2, "memory_bytes": 1, "kernel": "k", "governor": None}
    return {"machine": machine, "handicap": 0.0, "figures": [found]}


def test_the_budget_file_is_right() -> None:
    """Every figure loads, its script is there, and CI has a few of them."""
    figures = load_figures(FOLDER / "budget.toml")

    assert all((FOLDER / each.script).exists() for each in figures.values())
    assert 2 <= len(chosen(figures, (), "short")) < len(chosen(figures, (), "full")) == len(figures)


def test_every_mistake_of_a_budget_file_is_said(tmp_path: Path) -> None:
    """Unknown keys, bounds of variants that there are not, and what is missing."""
    path = tmp_path / "budget.toml"
    path.write_text(BUDGET.format(least="{ quick = 2.0 }").replace('unit = "ms"', "units = 1"))

    with pytest.raises(ConfigError) as caught:
        load_figures(path)

    message = "\n".join(caught.value.mistakes)
    assert "no variant named quick; there are slow, fast" in message
    assert "growing.unit: Field required" in message
    assert "growing.units: Extra inputs are not permitted" in message


def test_a_report_says_where_and_of_what_it_was_taken(folder: Path, headrace: Headrace) -> None:
    """Machine, versions, commit, payload, guarantee, every value, and the command of one run."""
    headrace("bench", "--runs", 2, "--json", folder / "report.json", "--page", folder / "page.md")

    found = json.loads((folder / "report.json").read_text())
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["python"] == sys.version.split()[0]
    (speed,) = found["figures"]
    assert {"commit", "dirty", "taken", "seconds", "form", "load_before"} <= speed.keys()
    assert (speed["payload"], speed["guarantee"], speed["within_budget"]) == ("nothing", "none", True)
    assert speed["variants"]["fast"]["values"] == [1001.0, 1002.0]
    assert speed["variants"]["fast"]["ratio"] == pytest.approx((1001 / 101 + 1002 / 102) / 2)
    assert speed["variants"]["fast"]["command"] == "python benchmarks/script.py 1000 fast"
    assert "| speed | fast | 3 | 5.0 MB |" in (folder / "page.md").read_text()
    assert (folder / "page" / "throughput.svg").read_text().startswith("<?xml")


def test_a_report_may_be_added_to(folder: Path, headrace: Headrace) -> None:
    """Figures are measured one by one, in any order; each says when, and one that is measured again is there once."""
    path = folder / "report.json"
    headrace("bench", "growing", "--json", path)
    first = json.loads(path.read_text())
    headrace("bench", "speed", "--runs", 1, "--json", path, "--add")
    headrace("bench", "speed", "--runs", 2, "--json", path, "--add")

    found = json.loads(path.read_text())

    assert [each["name"] for each in found["figures"]] == ["speed", "growing"]
    assert found["figures"][1] == first["figures"][0]
    assert len(found["figures"][0]["variants"]["fast"]["values"]) == 2


def test_a_pipe_stays_one(folder: Path, headrace: Headrace) -> None:
    """What is no file is written to, not replaced by one."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    headrace("bench", "speed", "--runs", 1, "--json", pipe)

    assert pipe.is_fifo()
    assert json.loads(os.read(reader, 1 << 20))["figures"][0]["name"] == "speed"
    os.close(reader)


def test_a_report_of_another_machine_is_not_added_to(folder: Path, headrace: Headrace) -> None:
    """It would say of all figures that they were taken here."""
    path = folder / "report.json"
    headrace("bench", "speed", "--runs", 1, "--json", path)
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "machine": {**before["machine"], "cores": 1000}}))

    done = headrace("bench", "growing", "--json", path, "--add", code=2)

    assert "cannot be added to: machine" in done.stderr
    assert "--add needs the file" in headrace("bench", "growing", "--add", code=2).stderr


def test_what_was_measured_is_kept_when_a_later_figure_fails(folder: Path, headrace: Headrace) -> None:
    """The file holds every figure that is done, as hours may have gone into it."""
    path = folder / "report.json"
    budget = (folder / "budget.toml").read_text()
    (folder / "budget.toml").write_text(budget.replace('arguments = ["{}", "{}"]', 'arguments = ["broken {}"]'))

    headrace("bench", "speed", "growing", "--runs", 1, "--json", path, code=1)

    assert [each["name"] for each in json.loads(path.read_text())["figures"]] == ["speed"]


def test_a_ratio_out_of_its_bounds_is_measured_again_and_then_an_error(folder: Path, headrace: Headrace) -> None:
    """Twice as many runs follow, all of them count, and the exit code is 1."""
    (folder / "budget.toml").write_text(BUDGET.format(least=20))

    done = headrace("bench", "speed", "--json", code=1)

    (speed,) = json.loads(done.stdout)["figures"]
    assert (speed["within_budget"], speed["retried"]) == (False, True)
    assert speed["variants"]["slow"]["values"] == [101.0, 102.0, 103.0, 104.0, 105.0, 106.0]
    assert "speed: a ratio is out of its bounds; 8 more runs" in done.stderr
    assert "speed: OUTSIDE BUDGET, after more runs" in done.stderr


def test_a_handicap_turns_the_budget_red(folder: Path, headrace: Headrace) -> None:
    """What is measured is delayed, its baseline is not: the same work takes twice its CPU time."""
    (folder / "script.py").write_text(
        "import json, time\n"
        "began = time.process_time()\n"
        "for _ in range(2_000_000): pass\n"
        "sum(n * n for n in range(2_000_000))\n"
        'print(json.dumps({"value": 1 / (time.process_time() - began)}))\n'
    )
    (folder / "budget.toml").write_text(BUDGET.format(least=0.65))

    headrace("bench", "speed", "--runs", 3)
    done = headrace("bench", "speed", "--runs", 3, "--handicap", "100%", "--json", code=1)

    found = json.loads(done.stdout)
    assert found["handicap"] == 1.0
    assert found["figures"][0]["variants"]["fast"]["ratio"] < 0.65


def test_a_script_that_fails_is_quoted(folder: Path, headrace: Headrace) -> None:
    """The figure, the variant and the end of what the script said."""
    (folder / "script.py").write_text("raise SystemExit('the broker is gone')")

    assert "speed slow failed:\nthe broker is gone" in headrace("bench", "speed", code=1).stderr


def test_a_variant_that_cannot_do_the_job_says_so(folder: Path, headrace: Headrace) -> None:
    """It has no ratio and is not judged."""
    (folder / "script.py").write_text(
        'import sys, json; print(json.dumps({"value": 1} if sys.argv[2] == "slow" else {"cannot": "no windows"}))'
    )

    done = headrace("bench", "speed", "--json")

    fast = json.loads(done.stdout)["figures"][0]["variants"]["fast"]
    assert (fast["median"], fast["cannot"]) == (None, "no windows")
    assert "no windows" in done.stderr


def test_no_share_is_a_mistake(headrace: Headrace) -> None:
    """Of a handicap."""
    with pytest.raises(Exception, match=r"'much' is no share: write 20% or 0\.2"):
        headrace("bench", "--handicap", "much")


def test_a_ratio_is_the_median_of_the_turns() -> None:
    """A slow turn that hits both variants alike changes no ratio."""
    found = judge(figure(least_ratio=1.9), measured(slow=[100, 50, 104], fast=[200, 100, 208]))

    assert found["variants"]["fast"]["ratio"] == 2.0
    assert found["within_budget"]


def test_bounds_may_be_by_variant() -> None:
    """Those that are not named are not judged."""
    three: dict[str, list[str]] = {"slow": [], "fast": [], "ceiling": []}
    found = judge(figure(variants=three, least_ratio={"fast": 3}), measured(slow=[1], fast=[2], ceiling=[1]))

    assert [each.get("within_budget") for each in found["variants"].values()] == [True, False, True]
    assert "least_ratio" not in found["variants"]["ceiling"]


@pytest.mark.parametrize(
    ("now", "better", "judgement"),
    [
        ([205.0, 200.0, 210.0], "more", "within noise"),
        ([150.0, 151.0, 152.0], "more", "worse"),
        ([300.0, 310.0, 305.0], "more", "better"),
        ([300.0, 310.0, 305.0], "less", "worse"),
    ],
)
def test_a_change_counts_when_it_is_more_than_the_spread(now: list[float], better: str, judgement: str) -> None:
    """Ratios are compared, as other work on the machine moves both variants."""
    old = report([200.0, 210.0, 195.0], [100.0] * 3, better=better)
    new = report(now, [100.0] * 3, better=better)

    fast = list(changes(old, new))[1]

    assert (fast.what, fast.judgement) == ("ratio", judgement)
    assert fast.noise == pytest.approx((15 / 200 + (max(now) - min(now)) / sorted(now)[1]) / 2)


def test_reports_of_two_machines_are_told_apart() -> None:
    """The table says why figures differ that no change of ours explains."""
    old, new = report([1.0], [1.0]), report([1.0], [1.0])
    new["machine"]["cpu"], new["handicap"], new["figures"][0]["form"] = "two", 0.2, "full"

    assert differences(old, new) == [
        "cpu: one before, two now",
        "speed: short form before, full now: sizes may differ",
        "now with a handicap of 20%",
    ]


def test_what_is_no_report_is_refused(tmp_path: Path, headrace: Headrace) -> None:
    """With the command that makes one."""
    (tmp_path / "old.json").write_text('{"figures": []}')

    done = headrace("bench", "--compare", tmp_path / "old.json", code=2)

    assert "is no report of format 2; make one with" in done.stderr


def test_time_left_follows_what_was_measured() -> None:
    """A stored report says it at first, then this run's own seconds."""
    speed = figure()
    stored = {"speed": {"seconds": 16.0, "variants": {"slow": {"values": [1] * 3}, "fast": {"values": [1] * 3}}}}
    expected = Expectation([speed], How("short", 1), stored)

    assert (expected.runs, expected.seconds()) == (4, 8.0)
    expected.done("speed", 10.0)
    assert (expected.runs, expected.seconds(), duration(150)) == (3, 30.0, "2 min")


def test_forms_differ_in_runs_and_sizes() -> None:
    """CI and the short form run less of what takes long; `--runs` wins over both."""
    variants = {"slow": [], "fast": ["--messages", "90", "--kafka"]}
    speed = figure(runs=4, short_runs=2, warm_up=False, variants=variants, short={"fast": ["--messages", "5"]})

    assert [How(form).runs_of(speed) for form in ("full", "short")] == [4, 2]
    assert (How("short", 7).runs_of(speed), How("short").runs_of(figure(runs=4))) == (7, 4)
    assert (speed.command("fast", "full"), speed.command("fast", "short")) == (
        ["script.py", "--messages", "90", "--kafka"],
        ["script.py", "--kafka", "--messages", "5"],
    )
    assert Expectation([speed], How("short"), {}).runs == 4


def test_a_profile_is_of_the_hot_path() -> None:
    """Start, waiting threads and the benchmark's own work are left out; libraries count for who calls them."""
    work = "run (asyncio/runners.py:1);Rollup.process (headrace/agents/rollup.py:2)"
    found = shares([
        f"{work} 30",
        f"{work};dumps (numpy/lib.py:3) 10",
        "measure (pipeline.py:25);load_device_types (headrace/tables/device_types.py:26) 50",
        "measure (pipeline.py:25);Pipeline.run (headrace/cli/pipeline.py:9) 40",
        "<module> (pipeline.py:1);_find (importlib/_bootstrap.py:1) 50",
        "_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:81) 50",
    ])  # fmt: skip

    assert found["samples"] == 80
    assert found["parts"] == [["headrace/agents/rollup.py", 0.5], ["headrace/cli/pipeline.py", 0.5]]
    assert ["dumps (numpy/lib.py)", 0.125] in found["functions"]


def test_the_page_is_what_the_stored_report_gives() -> None:
    """docs/performance.md is made, not written, and has its pictures."""
    docs = FOLDER.parent / "docs"
    stored = json.loads((docs / "performance.json").read_text())

    assert (docs / "performance.md").read_text() == page_of(stored)
    assert all((docs / "performance" / f"{name}.svg").exists() for name in pictures_of(stored))


def test_the_same_report_gives_the_same_pictures(tmp_path: Path) -> None:
    """Byte for byte, so that a change of the pictures is one of the figures."""
    stored = json.loads((FOLDER.parent / "docs" / "performance.json").read_text())

    first, second = (write_plots(stored, tmp_path / name) for name in "ab")

    assert [file.stem for file in first] == pictures_of(stored)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
