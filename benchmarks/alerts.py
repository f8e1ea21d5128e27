"""Alert rules on values: one run of a variant. Prints {"value": measures a second of CPU, or bytes, …}.

Readings of four measures, one per device every ten seconds of event time, devices in turns, in batches as a worker gets
them; each is decoded, evaluated, its events made and the changes of the tables taken as for a commit, all on one core.
Every device has a warm-up reading that does not count.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import psutil

from headrace.agents.alerting.alerts import Alerts
from headrace.engine import logging
from headrace.engine.log import Fetched
from headrace.engine.runtime.large_arrays import release_large_arrays
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.testkit import Driven, fetched, reading_records, run_batch
from headrace.schemas import topics
from headrace.schemas.readings import Floats, Readings
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.naive_watcher import NaiveWatcher

METRICS = ("temperature", "humidity", "co2", "pm25")
T0 = 1_700_000_000_000
CADENCE_MS = 10_000
BATCH = RuntimeSettings().max_batch_records
#: Values are about this large, and this far from it; those that cross go beyond `HOT`.
USUAL, SPREAD, HOT = 20.0, 5.0, 100.0
#: Rules that each device has in the sets of rules that are for listed devices.
OWN = 5


def rule(number: int, metric: str = "temperature", threshold: float = HOT, **changes: Any) -> AlertRule:
    """A rule that holds at once above a threshold, unless changed."""
    condition = {"metric": metric, "operator": ">", "threshold": threshold, **changes.pop("condition", {})}
    document = {"rule_id": f"rule-{number:05d}", "name": f"Rule {number}", "condition": condition}
    return AlertRule.model_validate({**document, "cooldown_period": 0, "flapping": None, **changes})


def one(devices: int, **condition: Any) -> list[AlertRule]:
    """A rule for all devices."""
    return [rule(0, condition=condition)]


def listed(devices: int, count: int) -> list[AlertRule]:
    """Rules on the four metrics, each for its share of the devices, so that each measure has `OWN`."""
    found = []
    for number in range(count):
        kind, turn = number % len(METRICS), number // len(METRICS)
        groups = count // len(METRICS) // OWN
        mine = range(turn % groups, devices, groups)
        ids = [device_id(device) for device in mine]
        found.append(rule(number, METRICS[kind], HOT + number / count, device_ids=ids))
    return found


def thresholds(devices: int, count: int) -> list[AlertRule]:
    """Rules for all devices on one metric, half of them above what is usual and half below."""
    above = [rule(number, threshold=HOT + number) for number in range(count // 2)]
    below = [rule(number, threshold=-number, condition={"operator": "<"}) for number in range(count // 2, count)]
    return above + below


def device_id(number: int) -> str:
    """Of the fleet."""
    return f"device-{number:07d}"


def values(rng: np.random.Generator, rounds: np.ndarray, crossing: float) -> Floats:
    """Values of a metric: some are beyond `HOT`, so that a share `crossing` of them cross it, up or down."""
    usual = rng.uniform(USUAL - SPREAD, USUAL + SPREAD, len(rounds)).round(2)
    if crossing >= 1:
        return np.where(rounds % 2, usual + HOT, usual)
    return np.where(rng.random(len(rounds)) < crossing / 2, usual + HOT, usual)


def batches(arguments: argparse.Namespace, messages: int) -> Iterator[Fetched]:
    """A reading of every device, then `messages` more."""
    devices, crossing, hot = arguments.devices, arguments.crossing, arguments.rules == "pending"
    rng = np.random.default_rng(7)
    starts = [*range(0, devices, BATCH), *range(devices, devices + messages, BATCH)]
    for first, end in zip(starts, [*starts[1:], devices + messages], strict=True):
        numbers = np.arange(first, end)
        device, rounds = numbers % devices, numbers // devices
        measures = {name: values(rng, rounds, 0) for name in METRICS[: arguments.measures]}
        measures["temperature"] = values(rng, rounds, crossing) + (HOT if hot else 0)
        readings = Readings(
            "environmental",
            np.arange(len(numbers)),
            [device_id(each) for each in device.tolist()],
            T0 + rounds * CADENCE_MS + device * CADENCE_MS // devices,
            [f"message-{each}" for each in numbers.tolist()],
            measures,
        )
        yield fetched(reading_records(readings), topics.READINGS, 0, first)


def rules_of(arguments: argparse.Namespace) -> list[AlertRule]:
    """The rules of a variant."""
    match arguments.rules:
        case "one":
            return one(arguments.devices)
        case "pending":
            return one(arguments.devices, duration=86_400)
        case "listed":
            return listed(arguments.devices, arguments.count)
        case _:
            return thresholds(arguments.devices, arguments.count)


def rate(arguments: argparse.Namespace) -> dict[str, float]:
    """Measures a second of CPU."""
    agent = Alerts(rules_of(arguments), watchers=[NaiveWatcher()] if arguments.naive else None)
    warm, measures, alerts, seconds, cpu = arguments.devices, 0, 0, 0.0, 0.0
    for batch in batches(arguments, arguments.messages):
        driven = Driven({}, [])
        began, began_cpu = time.perf_counter(), time.process_time()
        run_batch(agent, batch, driven)
        for table in agent.tables:
            table.changes(0)
        if batch.base_offset >= warm:
            seconds += time.perf_counter() - began
            cpu += time.process_time() - began_cpu
            measures += len(batch.records) * arguments.measures
            alerts += len(driven.sent.get(topics.ALERTS, ()))
    return {"value": measures / cpu, "measures_per_second": measures / seconds, "events": alerts}


def memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Bytes of resident memory per device, and per rule that a device has."""

    def run(agent: Alerts) -> None:
        for batch in batches(arguments, 0):
            run_batch(agent, batch, Driven({}, []))
            for table in agent.tables:
                table.changes(0)

    release_large_arrays()
    rules = rules_of(arguments)
    run(Alerts(rules))
    gc.collect()
    process, agent = psutil.Process(), Alerts(rules)
    before = process.memory_info().rss
    run(agent)
    gc.collect()
    used = process.memory_info().rss - before
    each = {"listed": OWN * len(METRICS), "thresholds": arguments.count}.get(arguments.rules, 1)
    return {
        "value": used / arguments.devices,
        "bytes_per_device_and_rule": used / arguments.devices / each,
        "rules": each,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rules", choices=["one", "pending", "listed", "thresholds"], default="one")
    parser.add_argument("--count", type=int, default=1000, help="rules, but for 'one' and 'pending'")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--measures", type=int, default=len(METRICS), help="of each reading")
    parser.add_argument("--crossing", type=float, default=0.0, help="share of temperatures that cross the threshold")
    parser.add_argument("--naive", action="store_true", help="a loop over the rules for each reading")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args(given)
    logging.configure("warning")
    print(json.dumps(memory(arguments) if arguments.memory else rate(arguments)))


if __name__ == "__main__":
    main()
