"""The Numenta Anomaly Benchmark: its files and its published scoring rule.

Source: Lavin and Ahmad (2015), Evaluating Real-time Anomaly Detection Algorithms – the Numenta Anomaly Benchmark,
ICMLA; https://github.com/numenta/NAB, `nab/sweeper.py`, `nab/scorer.py` and `config/profiles.json`.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Part of a file that is not scored, and the length of file that it is a part of at most.
PROBATION, LONGEST = 0.15, 5_000


class Profile(NamedTuple):
    """What a window found, a false alarm, and a window missed are worth."""

    found: float
    false_alarm: float
    missed: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "low false positives": Profile(1.0, 0.22, 1.0),
    "low false negatives": Profile(1.0, 0.11, 2.0),
}


class File(NamedTuple):
    """A series: event times (ms), values, and the windows of anomalies as first and last row."""

    times: Ints
    values: Floats
    windows: list[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Rows at the beginning that are not scored."""
        return int(min(PROBATION * len(self.times), PROBATION * LONGEST))


def load(folder: Path) -> dict[str, File]:
    """The files of a folder that `combined_windows.json` names and that are there, by category/name."""
    files = {}
    for name, windows in json.loads((folder / "combined_windows.json").read_text()).items():
        path = folder / name
        if not path.exists() and (folder / "data" / name).exists():
            path = folder / "data" / name
        if path.exists():
            files[name] = _read(path, windows)
    if not files:
        raise SystemExit(f"{folder}: no file that combined_windows.json names is there")
    return files


def _read(path: Path, windows: Iterable[tuple[str, str]]) -> File:
    with path.open() as lines:
        rows = list(csv.reader(lines))[1:]
    times = [_milliseconds(time) for time, _ in rows]
    first: dict[int, int] = {}
    for row, time in enumerate(times):
        first.setdefault(time, row)
    values = np.array([float(value) for _, value in rows])
    places = [(first[_milliseconds(begin)], first[_milliseconds(end)]) for begin, end in windows]
    return File(np.array(times, dtype=np.int64), values, places)


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)


def categories(files: Iterable[str]) -> list[str]:
    """The folders that the files are in."""
    return sorted({name.split("/")[0] for name in files})


def _sigmoid(position: Floats) -> Floats:
    """1 far before the end of a window, 0 at it, −1 far behind; from `scaledSigmoid`."""
    scaled = 2 / (1 + np.exp(5 * np.minimum(position, 3.0))) - 1
    return np.where(position > 3.0, -1.0, scaled)


_FIRST_ROW = float(_sigmoid(np.array(-1.0)))


def _worth(file: File) -> tuple[Ints, Floats]:
    """Per row: its window or −1, and what a detection there is worth before the profile weighs it."""
    rows = len(file.times)
    window, worth = np.full(rows, -1), np.full(rows, -1.0)
    for number, (first, last) in enumerate(file.windows):
        width = last - first + 1
        inside = np.arange(first, last + 1)
        window[inside] = number
        worth[inside] = _sigmoid(-(last - inside + 1) / width) / _FIRST_ROW
        until = file.windows[number + 1][0] if number + 1 < len(file.windows) else rows
        behind = np.arange(last + 1, until)
        worth[behind] = _sigmoid((behind - last) / (width - 1))
    return window, worth


class Curve(NamedTuple):
    """Score over threshold: a row is a detection where its score is at least the threshold.

    Args:
        thresholds: descending.
        scores: 0 is no detection at all, 100 every window found in its first row and nothing else.
    """

    thresholds: Floats
    scores: Floats

    def best(self) -> tuple[float, float]:
        """Highest score, and its threshold."""
        place = int(np.argmax(self.scores))
        return float(self.scores[place]), float(self.thresholds[place])

    def at(self, threshold: float) -> float:
        """Score at a threshold."""
        return float(self.scores[int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1])


def curve(files: Mapping[str, File], detected: Mapping[str, Floats], profile: Profile) -> Curve:
    """Scores for every threshold on `detected`, one score per row and file.

    In a category without any window nothing can be found, so scores are false alarms × weight, not normalised.
    """
    scores, worth, keys, missed = [], [], [], 0.0
    windows = sum(len(file.windows) for file in files.values())
    for number, (name, file) in enumerate(files.items()):
        window, unweighted = _worth(file)
        window, unweighted = window[file.probation :], unweighted[file.probation :]
        scores.append(detected[name][file.probation :])
        worth.append(np.where(window >= 0, unweighted * profile.found, unweighted * profile.false_alarm))
        keys.append(np.where(window >= 0, (number << 32) + window, -1))
        missed += len(set(window.tolist()) - {-1}) * profile.missed
    score, change, key = np.concatenate(scores), np.concatenate(worth), np.concatenate(keys)
    order = np.argsort(-score, kind="stable")
    score, change, key = score[order], change[order], key[order]
    # A window counts once, with its best detection so far.
    best: dict[int, float] = {}
    for row in np.flatnonzero(key >= 0).tolist():
        so_far, now = best.get(int(key[row]), -profile.missed), float(change[row])
        change[row] = max(now - so_far, 0.0)
        best[int(key[row])] = max(now, so_far)
    totals = np.append(0.0, np.cumsum(change)) - missed
    last = np.append(True, np.append(score[1:] != score[:-1], True))
    thresholds = np.append(np.inf, score)[last]
    null, perfect = -windows * profile.missed, windows * profile.found
    return Curve(thresholds, 100 * (totals[last] - null) / (perfect - null) if windows else totals[last])
