"""The job that headrace and its peers do: what is expected of them, how it is checked, and that headrace does it."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from local_kafka.jars import missing_tools

from tests.conftest import Require

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LOCKS = sorted((BENCHMARKS / "peers" / "requirements").glob("*.txt"))
#: Of fifteen rounds: the last window ends in its middle.
MESSAGES = 15_000


@pytest.fixture(scope="module")
def peers(load_benchmark: Callable[[str], Any]) -> Any:
    return load_benchmark("peers")


@pytest.fixture(scope="module")
def fleet(peers: Any) -> Any:
    return peers.Fleet(MESSAGES)


def records(fleet: Any) -> Iterator[tuple[bytes, bytes]]:
    """What an engine sends that makes no mistake."""
    for (device, start), aggregates in fleet.expected().items():
        yield device.encode(), orjson.dumps({"start": start} | {name: list(each) for name, each in aggregates.items()})


def test_expected_windows_are_those_of_the_messages_added_up_one_by_one(fleet: Any) -> None:
    """A plain loop over the payloads finds the same windows, to the last bit, and those of the readings that close."""
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    times = []
    for message in fleet.messages():
        reading = orjson.loads(message.payload)
        device, time = reading.pop("device_id"), reading.pop("timestamp")
        times.append(time)
        assert time == message.time
        for name, value in reading.items():
            found[device, time // 60_000 * 60_000][name].append(value)

    closing = {window for window in found if window[1] == fleet.closing_window()}
    assert times == sorted(times)
    assert len(times) == len(fleet) == MESSAGES + len(closing)
    assert fleet.windows() == len(fleet.expected())
    assert fleet.expected() == {
        window: {name: (len(values), sum_in_order(values), min(values), max(values)) for name, values in cells.items()}
        for window, cells in found.items()
        if window not in closing
    }


def sum_in_order(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_right_windows_are_verified_in_any_order_with_those_that_nothing_closes(peers: Any, fleet: Any) -> None:
    """Engines differ in the order in which they send, and in what the end of the input closes."""
    sent = list(records(fleet))[::-1]
    open_window = {"start": fleet.closing_window()} | {
        name: [1, 1.0, 1.0, 1.0] for name in ("temperature", "humidity", "co2", "pm25")
    }

    verdict = peers.verify(fleet, [*sent, (b"sensor-0000", orjson.dumps(open_window))], read(peers), "exactly-once")

    assert verdict.verified
    assert verdict.windows == len(sent)


def test_a_wrong_missing_or_unknown_window_is_a_mistake(peers: Any, fleet: Any) -> None:
    """A sum that is off in the last digit, a window that is not there, one that should not be, and what is no JSON."""
    key, value = (sent := list(records(fleet)))[7]
    document = orjson.loads(value)
    document["co2"][1] += 1e-10
    unknown = orjson.dumps(orjson.loads(value) | {"start": 0})

    for wrong in (
        [*sent[:7], *sent[8:]],
        [*sent[:7], (key, orjson.dumps(document)), *sent[8:]],
        [*sent, (key, unknown)],
        [*sent, (key, b"no JSON")],
    ):
        assert not peers.verify(fleet, wrong, read(peers), "at-least-once").verified


def test_a_window_may_be_sent_again_unless_exactly_once_was_promised(peers: Any, fleet: Any) -> None:
    """Repeats are counted, and a mistake where the row says exactly once."""
    sent = list(records(fleet))

    at_least_once, exactly_once = (
        peers.verify(fleet, [*sent, sent[3]], read(peers), guarantee) for guarantee in peers.GUARANTEES
    )

    assert at_least_once.verified
    assert at_least_once.repeated == 1
    assert not exactly_once.verified


def read(peers: Any) -> Any:
    """Reads the records of `records`."""
    return peers.ENGINES["faust"].read


def test_every_engine_has_a_row_or_a_reason_for_each_guarantee(peers: Any) -> None:
    """Never neither, never both."""
    for engine in peers.ENGINES.values():
        assert engine.version()
        assert {*engine.configuration} ^ {*engine.cannot} == {*peers.GUARANTEES}, engine.name


@pytest.mark.parametrize("lock", LOCKS, ids=[path.stem for path in LOCKS])
def test_locks_pin_by_hash_and_name_no_host(lock: Path) -> None:
    """Every package has a version and hashes, those that are asked for are in it, and there is no address."""
    text = lock.read_text()
    packages = re.findall(r"^([a-z0-9][^ =]*)==([^ ]+) .*\\$((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", text, re.M)
    lines = [line for line in text.splitlines() if line and line[0] not in " #"]

    assert len(packages) == len(lines) > 5
    assert "://" not in text
    assert "--index-url" not in text
    for asked in lock.with_suffix(".in").read_text().split():
        name, version = re.sub(r"\[.*\]", "", asked).split("==")
        assert any(line.startswith(f"{name}=={version} ") for line in lines), asked


@pytest.mark.integration
def test_headrace_does_the_job_on_kafka(require: Require) -> None:
    """The benchmark's own row, small: every window is sent, exactly once, equal to the last bit."""
    require(not missing_tools(), "what a Kafka needs", "apt-get install default-jre-headless maven openssl")
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--peer", "headrace", "--messages", "20000"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)

    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["verified"]
    assert found["repeated"] == 0
    assert found["value"] > 0
    assert found["messages"] >= 15_000
