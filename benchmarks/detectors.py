"""Scores every detector: on the Numenta Anomaly Benchmark, beside two simple references, or on a simulated fleet.

    python benchmarks/detectors.py --nab FOLDER [--detectors ensemble robust] [--json]
    python benchmarks/detectors.py --simulated [--detectors ensemble stuck cadence] [--json]

FOLDER has `combined_windows.json` and the files it names, as in NAB's `data` and `labels`; what is not there is left
out. For each detector: the score at its own threshold, as it ships, by NAB's three profiles; the best score of one
threshold for all files; and by category, shipped, and with the threshold that is best for all other categories.

The simulated fleet (`benchmarks/simulated.py`) has 40 devices for three weeks, a reading every five minutes, and
episodes of seven kinds. For each detector as it ships: how many of each kind it found, and how many anomalies it said
where nothing was wrong.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import nab
import numpy as np
from rich.console import Console
from rich.table import Table
from simulated import simulated_fleet

from headrace.agents.cadence import Cadence
from headrace.agents.detect import OPERATORS, SERIES, build_detect
from headrace.agents.detector import Detector
from headrace.agents.quiet import Quiet
from headrace.agents.series_fold import SeriesFold, SeriesPart, SeriesTables
from headrace.agents.three_sigma import ThreeSigma
from headrace.connectors.fleet_episodes import Episode
from headrace.engine.testkit import drive, reading_records
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.schemas.readings import Readings
from headrace.tables.device_types import load_device_types

#: Readings in a batch; scores do not depend on it.
CHUNK = 2_000
#: A threshold below every score, for all there are.
ANY = 1e-9
#: NAB's windowed Gaussian: window and step, readings.
WINDOW, STEP = 6_400, 100
SEED = 7
#: Simulated fleet: devices, days, seconds between readings; and how long after an episode it may still be found, ms.
DEVICES, DAYS, INTERVAL, SLACK_MS = 40, 21.0, 300.0, 3_600_000
#: Scores that the probability is fitted on, from here on, and the bins that are shown.
LEAST_FITTED = 1.5
BINS = (1.5, 2, 3, 3.5, 4, 5, 6, 8, 1e9)
STANDARD = nab.PROFILES["standard"]

Scores = dict[str, nab.Floats]


def main() -> None:
    """Parse arguments, score, print."""
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--nab", type=Path, help="folder with NAB's files and combined_windows.json")
    where.add_argument("--simulated", action="store_true", help="a simulated fleet with known trouble")
    every = [*SERIES, *OPERATORS]
    parser.add_argument("--detectors", nargs="+", choices=every, default=every)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--calibrate", action="store_true", help="fit the probability of the ensemble and stop")
    arguments = parser.parse_args()
    if arguments.simulated:
        on_fleet = simulated(arguments.detectors)
        if arguments.json:
            print(json.dumps(on_fleet))
        else:
            show_fleet(on_fleet)
        return
    files = nab.load(arguments.nab)
    if arguments.calibrate:
        calibrate(files)
        return
    results = {}
    for name in arguments.detectors:
        if name == Cadence.name:
            continue  # a file of NAB is one device, and its gaps are not marked
        Console(stderr=True).print(f"{name} …")
        if name == ThreeSigma.name:
            results[name] = rated(files, shipped=three_sigma(files))
        else:
            every = SERIES[name]()
            vars(every)["threshold"] = ANY
            results[name] = rated(files, shipped=detections(files, SERIES[name]()), free=scores(files, every))
    results["windowed Gaussian"] = rated(files, free=windowed_gaussian(files))
    results["random"] = rated(files, free=randomly(files))
    if arguments.json:
        print(json.dumps({"files": len(files), "detectors": results}))
    else:
        show(results, len(files))


def scores(files: Mapping[str, nab.File], detector: Detector) -> Scores:
    """The score of every reading by file; 0 where the detector keeps silent about the series."""
    tables, names = SeriesTables([detector]), list(files)
    which = np.concatenate([np.full(len(file.times), number) for number, file in enumerate(files.values())])
    rows = np.concatenate([np.arange(len(file.times)) for file in files.values()])
    times = np.concatenate([file.times for file in files.values()])
    values = np.concatenate([file.values for file in files.values()])
    found = np.zeros(len(values))
    order = np.argsort(rows, kind="stable")
    for start in range(0, len(order), CHUNK):
        at = order[start : start + CHUNK]
        readings = _readings([names[number] for number in which[at].tolist()], times[at], values[at])
        part = SeriesPart(tables, 0, readings)
        fold = SeriesFold([part], [detector], frozenset(), Quiet())
        part.apply()
        found[at[part.places]] = fold.scores[0, :, 0]
    return {name: found[which == number] for number, name in enumerate(names)}


def detections(files: Mapping[str, nab.File], detector: Detector) -> Scores:
    """1 where the detector as it ships says that there is an anomaly."""
    return {name: (found >= detector.threshold) * 1.0 for name, found in scores(files, detector).items()}


def three_sigma(files: Mapping[str, nab.File]) -> Scores:
    """As `detections`, of the detector that has tables of its own."""
    found = {name: np.zeros(len(file.times)) for name, file in files.items()}
    for name, file in files.items():
        readings = _readings([name] * len(file.times), file.times, file.values)
        sent = drive(ThreeSigma(), reading_records(readings)).sent.get(topics.ANOMALIES, [])
        anomalies = [Anomaly.model_validate_json(record.value or b"") for record in sent]
        found[name][[int(anomaly.message_id or "") for anomaly in anomalies]] = 1.0
    return found


def windowed_gaussian(files: Mapping[str, nab.File]) -> Scores:
    """NAB's reference: distance from the mean of a long window in its standard deviations."""
    found = {}
    for name, file in files.items():
        score, mean, deviation = np.zeros(len(file.times)), 0.0, 1.0
        total, squares = 0.0, 0.0
        for row, value in enumerate(file.values.tolist()):
            score[row] = abs(value - mean) / deviation if row else 0.0
            total, squares = total + value, squares + value * value
            if row >= WINDOW:
                gone = float(file.values[row - WINDOW])
                total, squares = total - gone, squares - gone * gone
            count = min(row + 1, WINDOW)
            if row < WINDOW or row % STEP == 0:
                mean = total / count
                deviation = sqrt(max(squares / count - mean * mean, 0.0)) or 1e-6
        found[name] = score
    return found


def randomly(files: Mapping[str, nab.File]) -> Scores:
    """NAB's reference: any score at all."""
    random = np.random.default_rng(SEED)
    return {name: random.random(len(file.times)) for name, file in files.items()}


def rated(
    files: Mapping[str, nab.File], *, shipped: Scores | None = None, free: Scores | None = None
) -> dict[str, Any]:
    """What a detector is worth.

    Args:
        files: all.
        shipped: 1 where it says that there is an anomaly, by file.
        free: scores for any threshold, by file.
    """
    by_category: dict[str, dict[str, float | None]] = {}
    for category in nab.categories(files):
        mine = {name: file for name, file in files.items() if name.startswith(category + "/")}
        others = {name: file for name, file in files.items() if name not in mine}
        has_windows = any(file.windows for file in mine.values())
        threshold = nab.curve(others, free, STANDARD).best()[1] if free and others else None
        by_category[category] = {
            "shipped": nab.curve(mine, shipped, STANDARD).at(1.0) if shipped and has_windows else None,
            "threshold_of_others": (
                nab.curve(mine, free, STANDARD).at(threshold)
                if free and has_windows and threshold is not None
                else None
            ),
        }
    best = {name: nab.curve(files, free, profile).best() for name, profile in nab.PROFILES.items()} if free else {}
    return {
        "shipped": {
            name: nab.curve(files, shipped, profile).at(1.0) if shipped else None
            for name, profile in nab.PROFILES.items()
        },
        "anomalies": int(sum(each.sum() for each in shipped.values())) if shipped else None,
        "best": {name: score for name, (score, _) in best.items()},
        "best_threshold": {name: threshold for name, (_, threshold) in best.items()},
        "categories": by_category,
    }


def simulated(names: Sequence[str]) -> dict[str, Any]:
    """By detector: episodes found of each kind, and anomalies where nothing was wrong per 1,000 days of a series."""
    readings, truth = simulated_fleet(SEED, DEVICES, DAYS, INTERVAL)
    # Append times are not known; they never go back, and a clock that is wrong moves nobody else's.
    step = round(INTERVAL * 1000)
    least = np.minimum.accumulate(readings.times[::-1])[::-1]
    appended = np.minimum(np.maximum.accumulate(readings.times), least + step)
    log = reading_records(readings, np.maximum.accumulate(appended).tolist())
    agent = build_detect(names, {}, load_device_types())
    sent = drive(agent, log, batch_sizes=[CHUNK] * (len(log) // CHUNK)).sent.get(topics.ANOMALIES, [])
    anomalies = [Anomaly.model_validate_json(record.value or b"") for record in sent]
    days = DEVICES * len(readings.measures) * DAYS
    return {name: _on_fleet([each for each in anomalies if each.detector == name], truth, days) for name in names}


def _on_fleet(anomalies: Sequence[Anomaly], truth: Sequence[Episode], days: float) -> dict[str, Any]:
    found: dict[str, list[int]] = {}
    meant: set[int] = set()
    for episode in truth:
        hits = {place for place, anomaly in enumerate(anomalies) if _about(anomaly, episode)}
        meant |= hits
        counts = found.setdefault(episode.kind.value, [0, 0])
        counts[0] += bool(hits)
        counts[1] += 1
    false = len(anomalies) - len(meant)
    return {"found": found, "anomalies": len(anomalies), "false": false, "false_per_1000_days": 1000 * false / days}


def _about(anomaly: Anomaly, episode: Episode) -> bool:
    """Whether an anomaly is about an episode: of its device and metric, while it lasted or soon after."""
    silent = anomaly.detector == Cadence.name
    # The time of a silence is that of the last reading before it.
    first = episode.first_ms - (2 * round(INTERVAL * 1000) if silent else 0)
    return (
        anomaly.device_id == episode.device
        and (silent or episode.metric in (None, anomaly.metric))
        and first <= anomaly.time <= episode.last_ms + SLACK_MS
    )


def show_fleet(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table."""
    kinds = sorted({kind for result in results.values() for kind in result["found"]})
    table = Table(
        title=f"simulated fleet, {DEVICES} devices, {DAYS:g} days: episodes found, and anomalies said",
        title_justify="left",
    )
    for column in ("detector", *kinds, "all", "false", "per 1,000 days"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for detector, result in results.items():
        found = ["/".join(map(str, result["found"][kind])) for kind in kinds]
        false = f"{result['false_per_1000_days']:.1f}"
        table.add_row(detector, *found, str(result["anomalies"]), str(result["false"]), false)
    Console().print(table)


def calibrate(files: Mapping[str, nab.File]) -> None:
    """Print how many of the ensemble's anomalies lie in a window, by score, and the fit that its constants are."""
    detector = SERIES["ensemble"]()
    vars(detector)["threshold"] = LEAST_FITTED
    score, hit = np.zeros(0), np.zeros(0)
    for name, found in scores(files, detector).items():
        file, inside = files[name], np.zeros(len(found))
        for first, last in file.windows:
            inside[first : last + 1] = 1.0
        scored = found[file.probation :]
        score = np.append(score, scored[scored >= LEAST_FITTED])
        hit = np.append(hit, inside[file.probation :][scored >= LEAST_FITTED])
    for low, high in pairwise(BINS):
        chosen = (score >= low) & (score < high)
        print(f"score {low:g} to {high:g}: {hit[chosen].mean():.0%} of {chosen.sum()} in a window")
    # Logistic regression on log(score), by Newton's method.
    inputs, weights = np.stack([np.ones_like(score), np.log(score)], axis=1), np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        curvature = (inputs * (chance * (1 - chance))[:, np.newaxis]).T @ inputs
        weights += np.linalg.solve(curvature, inputs.T @ (hit - chance))
    print(f"MIDDLE = {np.exp(-weights[0] / weights[1]):.2f}, STEEPNESS = {weights[1]:.2f}")


def show(results: Mapping[str, Mapping[str, Any]], files: int) -> None:
    """Print tables."""
    whole = Table(title=f"NAB, {files} files: one threshold for all", title_justify="left")
    whole.add_column("detector")
    for name in nab.PROFILES:
        whole.add_column(f"{name}, shipped", justify="right")
    whole.add_column("anomalies", justify="right")
    for name in nab.PROFILES:
        whole.add_column(f"{name}, best", justify="right")
    parts = Table(title="standard profile: shipped / with the threshold best for the others", title_justify="left")
    parts.add_column("detector")
    for category in next(iter(results.values()))["categories"]:
        parts.add_column(category, justify="right")
    for detector, result in results.items():
        shipped = [_shown(result["shipped"][name]) for name in nab.PROFILES]
        best = [_shown(result["best"].get(name)) for name in nab.PROFILES]
        whole.add_row(detector, *shipped, str(result["anomalies"] or ""), *best)
        cells = result["categories"].values()
        parts.add_row(detector, *(f"{_shown(c['shipped'])} / {_shown(c['threshold_of_others'])}" for c in cells))
    console = Console()
    console.print(whole)
    console.print(parts)


def _readings(devices: list[str], times: nab.Ints, values: nab.Floats) -> Readings:
    ids = [str(row) for row in range(len(devices))]
    return Readings("nab", np.arange(len(devices)), devices, times, ids, {"value": values})


def _shown(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"


if __name__ == "__main__":
    main()
