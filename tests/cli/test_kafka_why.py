"""`headrace why` and `headrace users preview` on a real Kafka, of what a worker there has decided."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.cli.moments import iso_ms
from headrace.engine.clock import SystemClock
from headrace.schemas import topics
from tests.agents.notifying.histories import AlertLog
from tests.cli.conftest import Headrace
from tests.cli.decided_log import append
from tests.cli.test_kafka_commands import World, until

pytestmark = pytest.mark.integration

#: Of two alerts, each by mail and by push.
DECISIONS = 4
USERS = """
[[user]]
id = "ada"
email = "ada@example.com"
tokens = ["t-1"]
devices = ["*"]

[[user]]
id = "cy"
email = "cy@example.com"
devices = ["d-9"]
"""


async def test_both_tell_what_a_worker_has_decided(kafka_tools: None, headrace: Headrace, tmp_path: Path) -> None:
    """The second mail within a minute is held; why says so, and why somebody else heard nothing; a preview agrees."""
    (tmp_path / "users.toml").write_text(USERS)
    with Cluster() as cluster:
        world = World(cluster, tmp_path / "headrace.toml")

        async def command(*arguments: object) -> Any:
            done = await asyncio.to_thread(headrace, *arguments, "--config", world.config, "--json")
            return json.loads(done.stdout)

        async def has_topics() -> bool:
            async with world.log() as log:
                return topics.NOTIFICATIONS in {spec.name for spec in await log.topics()}

        async def decided() -> list[dict[str, Any]]:
            return [orjson.loads(value or b"")["data"] for value in await world.values(topics.NOTIFICATIONS)]

        async def all_decided() -> bool:
            return len(await decided()) >= DECISIONS

        with world.worker() as output:
            await until(lambda: "worker" in output.read_text())
            await until(has_topics)
            await command("users", "import", tmp_path / "users.toml")
            now = SystemClock().now_ms()
            alerts = AlertLog({"hot": "warning", "warm": "warning"})
            first, second = (alerts.trigger(rule, "d-1", now + place) for place, rule in enumerate(("hot", "warm")))
            async with world.log() as log:
                await append(log, topics.ALERTS, alerts.records())
            await until(all_decided)
        held = await command("why", second.alertId[:8], "ada")
        nothing = await command("why", first.alertId[:8], "cy")
        again = await command("users", "preview", "ada", "--since", "1h", "--until", iso_ms(now + 30_000))
        # Not what becomes of the held one a minute later.
        last = sorted(each["decidedAt"] for each in await decided())[DECISIONS - 1]
        states = [each for each in await decided() if each["decidedAt"] <= last]

    assert held["outcome"]["email"]["status"] == "held"
    assert held["outcome"]["email"]["reasons"][-1]["code"] == "cap"
    assert held["outcome"]["push"]["status"] == "queued"
    assert [line["reasons"][0]["code"] for line in nothing["story"] if not line["recorded"]] == ["not-subscribed"]
    assert [(each["notificationId"], each["status"], each["reasons"]) for each in again["decided"]] == [
        (each["notificationId"], each["status"], each["reasons"]) for each in states
    ]
