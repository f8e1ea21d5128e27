"""Milliseconds from the time of a reading in a running demo to when a receiver has taken the message about its alert.

`headrace demo` in real time, with everything that belongs to it (MQTT, agents, PostgreSQL), and an HTTP server as an
integration that is told of every alert. A rule sits in the noise of a measure, so that a few readings in a hundred
triggers. Prints {"value": p99 in ms, …}; "published_per_second" says whether the machine could publish what was asked.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from notify_latency import receiver

#: At one reading every other second, and the first of all devices at once: those are not counted.
DEVICES, WARM_UP_MS = 1_000, 4_000
SETTINGS = """
[alert]
rules = "{folder}/rules.toml"
[channels.webhook]
private_networks = ["127.0.0.0/8"]
[channels.integrations.bench]
kind = "webhook"
url = "http://127.0.0.1:{port}/"
tell = ["alert"]
"""
RULES = """
[[rule]]
rule_id = "shaking"
name = "Shaking"
severity = "critical"
cooldown_period = 0
flapping = false
condition = {metric = "vibration", operator = ">", threshold = 2.9, duration = 0}
"""


def headrace(*arguments: str) -> list[dict[str, object]]:
    """What a command prints, line by line.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "headrace.cli.main", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(rate: int, seconds: float, folder: Path) -> dict[str, float]:
    """One demo, and the percentiles."""
    data = str(folder / "data")
    with receiver("webhook") as pipe:
        (folder / "rules.toml").write_text(RULES)
        (folder / "headrace.toml").write_text(SETTINGS.format(folder=folder, port=pipe.recv()))
        options = ("--rate", str(rate), "--devices", str(DEVICES), "--seconds", str(seconds), "--speed", "1")
        config = ("--config", str(folder / "headrace.toml"))
        (report,) = headrace("demo", *options, "--no-faults", "--data", data, *config)
    alerts = headrace("alerts", "list", "--status", "all", "--limit", "0", "--data", data)
    triggered = {str(each["alertId"]): int(str(each["triggeredAt"])) for each in alerts}
    told = headrace("notifications", "list", "--limit", "0", "--data", data)
    delivered = {str(each["alertId"]): int(str(each["deliveredAt"])) for each in told if "deliveredAt" in each}
    if not triggered or triggered.keys() - delivered.keys():
        raise SystemExit(f"{len(delivered)} of {len(triggered)} alerts were told of")
    from_ms = min(triggered.values()) + WARM_UP_MS
    taken = np.array([delivered[each] - at for each, at in triggered.items() if at >= from_ms])
    return {
        "value": float(np.percentile(taken, 99)),
        "p50_ms": float(np.percentile(taken, 50)),
        "longest_ms": float(taken.max()),
        "messages": len(taken),
        "published_per_second": int(str(report["accepted"])) / seconds,
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=2_000, help="messages per second")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.rate, arguments.seconds, Path(folder))))


if __name__ == "__main__":
    main()
