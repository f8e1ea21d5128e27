"""HTTP ingest with the log on a real Kafka: what ingest says comes back from there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_kafka.cluster import Cluster

from tests.cli.test_bridge import PATIENCE, end, start, wait_started
from tests.cli.test_bridge_http import SENSOR, Client, until_listening
from tests.mosquitto import free_port

__all__ = ["start"]
pytestmark = pytest.mark.integration


def test_what_ingest_says_is_the_answer(kafka_tools: None, start: Any, tmp_path: Path) -> None:
    """201 for what is stored, and again for the same; 409 for what contradicts it, each time."""
    port = free_port()
    with Cluster() as cluster:
        where = f'[log]\nurl = "kafka://{cluster.bootstrap}"\n'
        bridge = start(f"[http]\nport = {port}\n{where}")
        wait_started(bridge)
        until_listening(port)
        config = tmp_path / "worker.toml"
        config.write_text(where)
        command = [sys.executable, "-m", "headrace.cli.main", "worker", "--config", str(config)]
        worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            wait_started(worker)
            client = Client(port)
            values = [21.5, 21.5, *range(10), 21.5]
            answers = [client.post("/sensor/data", SENSOR | {"value": each}, Prefer="wait=60") for each in values]
        finally:
            worker.terminate()
            worker.communicate(timeout=PATIENCE)
        end(bridge)

    assert [each.status for each in answers] == [201, 201, *[409] * 10, 201]
