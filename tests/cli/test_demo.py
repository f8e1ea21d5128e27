"""`headrace demo` for real: MQTT broker, log, agents, PostgreSQL, in a process of its own."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace.cli.main", "demo", *arguments]


def wait_seen(process: "subprocess.Popen[str]", *wanted: str) -> None:
    """Wait until the plain view has shown each of these to be more than 0."""
    assert process.stderr is not None
    seen: set[str] = set()
    while not seen.issuperset(wanted):
        line = process.stderr.readline()
        assert line, "the demo ended by itself"
        seen.update(name for name, count in re.findall(r"(\w+)=(\d+)", line) if int(count))


def test_demo_shows_alerts_anomalies_and_closed_windows_and_balances(tmp_path: Path) -> None:
    """Everything is seen soon; the ledger balances, and once the time is up with nothing in flight."""
    with subprocess.Popen(
        command("--json", "--data", str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_seen(process, "stored", "duplicate", "conflict", "dead_lettered", "open_alerts", "anomalies", "windows")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    first = json.loads(stdout)
    done = subprocess.run(
        command("--seconds", "2", "--json", "--data", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    report = json.loads(done.stdout)
    assert first["balanced"]
    assert first["accepted"] > 1000
    assert first["messages_per_second"] > 0
    assert 0 < first["latency_ms"]["p50"] <= first["latency_ms"]["p99"]
    assert report["balanced"]
    assert report["in_flight"] == 0
    assert report["accepted"] > first["accepted"]
    for term in ("stored", "duplicate", "conflict", "dead_lettered", "alerts", "anomalies", "rollups"):
        assert report[term] > 0, term


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_demo_stops_when_asked_to_and_keeps_the_rest(tmp_path: Path, how: signal.Signals) -> None:
    """On Ctrl-C and SIGTERM the demo finishes, reports a balanced ledger and exits 0; the next one goes on."""
    for _ in range(2):
        with subprocess.Popen(
            command("--json", "--rate", "300", "--data", str(tmp_path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            wait_seen(process, "stored")  # the first look of the plain view comes after some seconds of running
            process.send_signal(how)  # its input never ends
            stdout, stderr = process.communicate(timeout=300)

        assert process.returncode == 0, stderr
        report = json.loads(stdout)
        assert report["balanced"]
        assert report["stored"] > 0


def test_demo_of_another_device_type_writes_the_truth(tmp_path: Path) -> None:
    """Tilt sensors come through the whole path, and what was wrong with them is in the file."""
    truth = tmp_path / "truth.ndjson"
    what = ("--type", "tilt", "--seconds", "6", "--speed", "3600", "--fault", "spoofed=0", "--fault", "gap=0.5")
    done = subprocess.run(
        command(*what, "--truth", str(truth), "--data", str(tmp_path / "data"), "--json"),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    report = json.loads(done.stdout)
    episodes = [json.loads(line) for line in truth.read_text().splitlines()]
    assert report["balanced"]
    assert report["stored"] > 500
    assert report["dead_lettered"] > 0
    assert sum(episode["kind"] == "gap" for episode in episodes) >= 25
    assert {"device", "metric", "kind", "first_ms", "last_ms", "size"} == episodes[0].keys()


def test_mistakes_in_options_are_all_said() -> None:
    """A type and a fault that do not exist, a share that is none, a share that is too large."""
    done = subprocess.run(
        command("--type", "tlit", "--fault", "stuk=1", "--fault", "late=much", "--fault", "gap=2"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 2
    for said in ("did you mean 'tilt'", "did you mean 'stuck'", "'much' is no number", "fleet: gap"):
        assert said in done.stderr


def test_mistakes_at_run_time_are_errors_not_tracebacks(tmp_path: Path) -> None:
    """A data folder that cannot be made is said plainly."""
    (tmp_path / "file").write_text("")

    done = subprocess.run(
        command("--data", str(tmp_path / "file" / "data")), capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be made" in done.stderr
