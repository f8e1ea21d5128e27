"""`headrace bench`: what it runs, how it judges, and what it says about changes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headrace.cli import bench as bench_command
from headrace.cli import bench_figures, bench_machine, bench_runs
from headrace.cli.bench_compare import changes, differences, show_changes
from headrace.cli.bench_figures import FOLDER, Figure, chosen, load_figures
from headrace.cli.bench_page import page_of, pictures_of
from headrace.cli.bench_plot import write_plots
from headrace.cli.bench_profile import shares
from headrace.cli.bench_progress import Expectation, duration
from headrace.cli.bench_runs import How, Measured, judge
from headrace.cli.bench_view import spread_of
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
more = {"cpu_us_per_message": 3, "bytes_per_million": 5e6, "version": "fastest 1.2", "configuration": "one thread"}
print(json.dumps({"value": value + before, **more}))
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
    stamps = {"seconds": 1.0, "taken": "2026-01-01T00:00:00Z", "load_before": 0.0, "commit": "1" * 40, "dirty": False}
    return {
        "format": 2,
        "machine": machine,
        "versions": {"python": "3"},
        "handicap": 0.0,
        "figures": [{**found, **stamps}],
    }


def test_the_budget_file_is_right() -> None:
    """Every figure loads, its script is there, and CI has a few of them."""
    figures = load_figures(FOLDER / "budget.toml")

    assert all((FOLDER / each.script).exists() for each in figures.values())
    assert 2 <= len(chosen(figures, (), "short")) < len(chosen(figures, (), "full")) == len(figures)


def test_the_peers_have_the_versions_that_are_told() -> None:
    """In the guide to them, as in what is installed."""
    peers = FOLDER / "peers"
    pins = [pin for file in (peers / "requirements").glob("*.in") for pin in file.read_text().split()]
    streams = re.findall("<kafka.version>(.*?)<", (peers / "kafka_streams" / "pom.xml").read_text())
    told = (peers / "README.md").read_text()

    of_engines = [pin for pin in pins if not pin.startswith(("orjson", "uvloop"))]
    assert len(of_engines) == 4
    assert all(re.sub(r"(\[.*\])?==", " ", pin) in told for pin in of_engines)
    assert f"Kafka Streams {streams[0]}" in told


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
    assert found["versions"]["postgresql"].startswith("18.")
    (speed,) = found["figures"]
    assert {"commit", "dirty", "taken", "seconds", "form", "load_before"} <= speed.keys()
    assert (speed["payload"], speed["guarantee"], speed["within_budget"]) == ("nothing", "none", True)
    assert speed["variants"]["fast"]["values"] == [1001.0, 1002.0]
    assert speed["variants"]["fast"]["ratio"] == pytest.approx((1001 / 101 + 1002 / 102) / 2)
    assert speed["variants"]["fast"]["command"] == "python benchmarks/script.py 1000 fast"
    assert "| speed | fast | 3 | 5.0 MB |" in (folder / "page.md").read_text()
    assert "| fastest 1.2, one thread, cpu_us_per_message 3," in (folder / "page.md").read_text()
    assert (folder / "page" / "throughput.svg").read_text().startswith("<?xml")


def test_a_report_may_be_added_to(folder: Path, headrace: Headrace) -> None:
    """Figures are measured one by one, in any order; each says when, and one that is measured again is there once."""
    path = folder / "report.json"
    assert b"not judged" in headrace("bench", "growing", "--json", path).stdout
    first = json.loads(path.read_text())
    headrace("bench", "speed", "--runs", 1, "--json", path, "--add")
    headrace("bench", "speed", "--runs", 2, "--json", path, "--add")

    found = json.loads(path.read_text())

    assert [each["name"] for each in found["figures"]] == ["speed", "growing"]
    assert found["figures"][1] == first["figures"][0]
    assert len(found["figures"][0]["variants"]["fast"]["values"]) == 2


def test_what_a_report_had_before_is_not_judged_again(folder: Path, headrace: Headrace) -> None:
    """A figure out of its bounds, kept by `--add`, is no failure of another that is measured now."""
    path = folder / "report.json"
    (folder / "budget.toml").write_text(BUDGET.format(least=20))
    headrace("bench", "speed", "--runs", 1, "--json", path, code=1)

    done = headrace("bench", "growing", "--json", path, "--add")

    assert b"growing:" in done.stdout
    assert b"speed:" not in done.stdout
    headrace("bench", "--report", path, code=1)


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
    """What is measured is delayed, its baseline is not: the same work takes twice the ticks of a clock that counts."""
    (folder / "script.py").write_text(
        "import json, signal, time\n"
        "used = 0\n"
        "def thread_time():\n"
        "    global used\n"
        "    used += 1\n"
        "    return used\n"
        "time.thread_time = thread_time\n"
        "used += 1000\n"
        "if signal.getsignal(signal.SIGALRM) != signal.SIG_DFL: signal.pause()\n"
        'print(json.dumps({"value": 1 / used}))\n'
    )
    (folder / "budget.toml").write_text(BUDGET.format(least=0.65))

    headrace("bench", "speed", "--runs", 3)
    done = headrace("bench", "speed", "--runs", 3, "--handicap", "100%", "--json", code=1)

    found = json.loads(done.stdout)
    assert found["handicap"] == 1.0
    assert "**With a handicap of 100%" in page_of(found)
    assert found["figures"][0]["variants"]["fast"]["ratio"] < 0.65


def test_a_program_that_is_missing_is_said_before_anything_runs(
    folder: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package that brings it and the figures that need it; other figures run without."""
    path = folder / "budget.toml"
    path.write_text(path.read_text().replace('form = "short"', 'form = "short"\nprograms = ["java", "mvn"]'))
    monkeypatch.setenv("PATH", str(folder))

    assert headrace("bench", "growing", "speed", code=2).stderr.splitlines() == [
        "java is not installed (Debian: default-jre-headless); it is for speed",
        "mvn is not installed (Debian: maven); it is for speed",
    ]
    assert not list(folder.glob("runs-*"))
    headrace("bench", "growing")


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


def test_one_run_says_nothing_about_noise() -> None:
    """A spread of a single run is not 0 but unknown, so a change is neither better nor worse."""
    several, one = report([200.0, 210.0], [100.0] * 2), report([300.0], [100.0])

    found = [*changes(several, one), *changes(one, several), *changes(one, one)]

    assert {(each.noise, each.judgement) for each in found} == {(None, "one run")}
    assert spread_of(one["figures"][0]["variants"]["fast"]) == "one run"


def test_a_comparison_can_be_read_on_a_narrow_terminal() -> None:
    """Figures are not cut off, and it says when that which was before was taken."""
    old, new = report([2_000_000.0, 2_100_000.0], [1.0, 1.0]), report([1_000_000.0, 1_100_000.0], [1.0, 1.0])
    console = Console(width=80, file=io.StringIO())

    show_changes(old, new, console)

    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "speed, messages/s: compared with 2026-01-01, 111111111111" in said
    assert all(text in said for text in ("2,050,000", "1,050,000", "ratio -48.8%", "worse"))


def test_reports_of_two_machines_are_told_apart() -> None:
    """The table says why figures differ that no change of ours explains."""
    old, new = report([1.0], [1.0]), report([1.0], [1.0])
    new["machine"]["cpu"], new["handicap"], new["figures"][0]["form"] = "two", 0.2, "full"
    new["versions"] = {"python": "4", "java": "17"}

    assert differences(old, new) == [
        "cpu: one before, two now",
        "python: 3 before, 4 now",
        "java: none before, 17 now",
        "speed: short form before, full now: sizes may differ",
        "now with a handicap of 20%",
    ]


def test_what_is_no_report_is_refused(tmp_path: Path, headrace: Headrace) -> None:
    """With the command that makes one."""
    (tmp_path / "old.json").write_text('{"figures": []}')

    done = headrace("bench", "--compare", tmp_path / "old.json", code=2)

    assert "is no report of format 2; make one with" in done.stderr


@pytest.mark.parametrize("broken", ["machine", "versions", "figures", "handicap"])
def test_a_report_with_a_part_missing_is_refused(broken: str, tmp_path: Path, headrace: Headrace) -> None:
    """Before anything is measured, with the name of what is missing."""
    found = report([1.0], [1.0])
    del found[broken]
    (tmp_path / "report.json").write_text(json.dumps(found))

    done = headrace("bench", "--compare", tmp_path / "report.json", code=2)

    assert f"is a broken report: {broken}: Field required" in done.stderr


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(folder: Path, headrace: Headrace) -> None:
    """All of them at once: hours of measuring are not lost for a folder that is not there."""
    places = (
        "--json",
        folder / "no" / "x.json",
        "--page",
        folder / "no" / "x.md",
        "--plot",
        folder / "script.py" / "x",
    )

    done = headrace("bench", "speed", *places, code=2)

    assert len(done.stderr.splitlines()) == 3
    assert f"x.json cannot be written: there is no folder {folder / 'no'}" in done.stderr
    assert f"{folder / 'script.py'} is no folder" in done.stderr
    assert not (folder / "runs-slow").exists()


def test_a_report_that_is_shown_takes_no_options_of_measuring(folder: Path, headrace: Headrace) -> None:
    """They would be without effect, and who gave them would believe otherwise."""
    headrace("bench", "speed", "--runs", 1, "--json", folder / "report.json")

    for more in (["speed"], ["--runs", "3"], ["--handicap", "20%"], ["--json", folder / "two.json"], ["--short"]):
        assert (
            "--report measures nothing" in headrace("bench", "--report", folder / "report.json", *more, code=2).stderr
        )


def test_named_figures_have_a_short_form(folder: Path, headrace: Headrace) -> None:
    """`--short NAME` measures what the short form does, and the page gives that command."""
    text = (folder / "budget.toml").read_text()
    (folder / "budget.toml").write_text(text.replace("runs = 2", "runs = 4\nshort_runs = 2", 1))
    files = ("--json", folder / "report.json", "--page", folder / "page.md")

    headrace("bench", "speed", "--short", *files)

    (speed,) = json.loads((folder / "report.json").read_text())["figures"]
    assert (speed["form"], len(speed["variants"]["fast"]["values"])) == ("short", 2)
    assert "`headrace bench speed --short --runs 2`" in (folder / "page.md").read_text()
    assert "though `headrace bench NAME` measures them: `growing`." in (folder / "page.md").read_text()


def test_benchmarks_that_are_stopped_have_no_verdict(folder: Path, headrace: Headrace) -> None:
    """The exit code is that of the signal, as 0 would say that all is within the budget."""
    (folder / "script.py").write_text("import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)")

    done = headrace("bench", "speed", code=128 + signal.SIGTERM)

    assert "stopped: nothing is judged" in done.stderr


def test_a_run_that_is_stopped_may_end_its_servers(folder: Path, headrace: Headrace) -> None:
    """It is interrupted, not killed: a killed one would leave PostgreSQL and Mosquitto behind."""
    (folder / "script.py").write_text(
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "try:\n"
        "    os.kill(os.getppid(), signal.SIGTERM)\n"
        "    time.sleep(600)\n"
        "finally:\n"
        "    Path(__file__).with_name('ended').touch()\n"
    )

    headrace("bench", "speed", code=128 + signal.SIGTERM)

    assert (folder / "ended").exists()


def test_a_clone_is_not_changed_by_the_report_that_is_written_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every figure but the first would be of a commit with changes."""
    monkeypatch.setattr(bench_machine, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("code.py", "docs/performance.json"):
        (tmp_path / name).write_text("1")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)

    (tmp_path / "docs" / "performance.json").write_text("2")
    reported = bench_machine.commit()
    (tmp_path / "code.py").write_text("2")

    assert (reported["dirty"], bench_machine.commit()["dirty"]) == (False, True)


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


def test_a_picture_of_latency_has_a_scale(tmp_path: Path) -> None:
    """Also when all percentiles are within a power of ten."""
    found = report([1.0], [1.0], unit="ms")
    found["figures"][0].update(axis="load", points=[10, 90])
    found["figures"][0]["variants"] = {
        "10": {"median": 140.0, "p50_ms": 100.0},
        "90": {"median": 310.0, "p50_ms": 200.0},
    }

    (picture,) = write_plots(found, tmp_path)

    assert {">100<", ">200<", ">300<"} <= set(re.findall(r">\d+<", picture.read_text()))
