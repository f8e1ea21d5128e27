"""NAB's scoring rule, by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROWS = 1000


@pytest.fixture(scope="module")
def nab(load_benchmark: Callable[[str], Any]) -> Any:
    return load_benchmark("nab")


def score(nab: Any, detections: list[int], windows: list[tuple[int, int]], profile: str = "standard") -> float:
    """Of one file with detections in these rows."""
    file = nab.File(np.arange(ROWS), np.zeros(ROWS), windows)
    detected = np.zeros(ROWS)
    detected[detections] = 1.0
    found: float = nab.curve({"a/b": file}, {"a/b": detected}, nab.PROFILES[profile]).at(1.0)
    return found


def sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def test_nothing_is_0_and_the_first_row_of_every_window_is_100(nab: Any) -> None:
    """The ends of the scale."""
    windows = [(300, 399), (600, 649)]
    assert score(nab, [], windows) == 0
    assert score(nab, [300, 600], windows) == pytest.approx(100)


def test_a_window_counts_once_with_its_earliest_detection(nab: Any) -> None:
    """Later ones in it add nothing; the later the first, the less it is worth."""
    window = [(300, 399)]
    half = 100 * (1 + sigmoid(-50 / 100) / sigmoid(-1.0)) / 2
    assert score(nab, [350], window) == pytest.approx(half)
    assert score(nab, [350, 360, 399], window) == pytest.approx(half)


def test_false_alarms_cost_by_profile_and_by_how_far_they_are_behind(nab: Any) -> None:
    """Just behind a window little, else a tenth of what a window is worth, or two tenths."""
    window = [(300, 399)]
    assert score(nab, [300, 200], window) == pytest.approx(100 - 100 * 0.11 / 2)
    assert score(nab, [300, 900], window) == pytest.approx(100 - 100 * 0.11 / 2)
    assert score(nab, [300, 900], window, "low false positives") == pytest.approx(100 - 100 * 0.22 / 2)
    behind = -sigmoid(10 / 99) * 0.11
    assert score(nab, [300, 409], window) == pytest.approx(100 - 100 * behind / 2)


def test_a_missed_window_costs_double_where_misses_are_dear(nab: Any) -> None:
    """One of two windows found: half, or less."""
    windows = [(300, 399), (600, 699)]
    assert score(nab, [300], windows) == pytest.approx(50, abs=3)
    assert score(nab, [300], windows, "low false negatives") == pytest.approx(50, abs=3)


def test_the_beginning_is_not_scored(nab: Any) -> None:
    """The first 15 % of a file, at most 750 rows, are for learning."""
    assert score(nab, [10, 149, 300], [(300, 399)]) == pytest.approx(100)
    assert nab.File(np.arange(20_000), np.zeros(20_000), []).probation == 750


def test_the_best_threshold_is_found(nab: Any) -> None:
    """Between the score of the window and those of the noise."""
    file, detected = nab.File(np.arange(ROWS), np.zeros(ROWS), [(300, 399)]), np.full(ROWS, 0.5)
    detected[300] = 0.9
    best, threshold = nab.curve({"a/b": file}, {"a/b": detected}, nab.PROFILES["standard"]).best()
    assert best == pytest.approx(100)
    assert threshold == 0.9


def test_files_are_read_as_published(nab: Any, tmp_path: Path) -> None:
    """A CSV per series, and windows by their times; files that are not there are left out."""
    (tmp_path / "real").mkdir()
    rows = [f"2014-04-01 00:{minute:02d}:00,{minute}.5" for minute in range(0, 50, 5)]
    (tmp_path / "real" / "one.csv").write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    windows = {
        "real/one.csv": [["2014-04-01 00:10:00.000000", "2014-04-01 00:20:00.000000"]],
        "real/other.csv": [],
    }
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))

    files = nab.load(tmp_path)

    assert list(files) == ["real/one.csv"]
    assert files["real/one.csv"].windows == [(2, 4)]
    assert files["real/one.csv"].values[3] == 15.5
    assert int(files["real/one.csv"].times[1] - files["real/one.csv"].times[0]) == 300_000
