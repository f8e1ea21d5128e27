"""`headrace sparkplug` on what the intake really wrote."""

import asyncio
from pathlib import Path

import orjson

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from tests.cli.conftest import Headrace
from tests.connectors.sparkplug.edge_node import EdgeNode

PROFILE = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")
NOW = 1_750_000_000_000


async def written(folder: Path) -> None:
    """An edge node with a device, of which a message was lost, and one that nobody has heard the birth of."""
    log, clock = EmbeddedLog(folder), ManualClock(NOW)
    await log.create_topics([*Intake.topic_specs(1), *SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, 1)])
    intake = SparkplugIntake(SparkplugSettings(), PROFILE, Intake(log, clock), log, clock)
    metrics = {"motor": {"rpm": (1, "Int32")}}
    press, saw = EdgeNode(metrics=metrics), EdgeNode(name="saw", metrics=metrics)
    press.connect()
    sent = press.births(NOW, {("motor", "rpm"): 1})
    press.data("motor", NOW + 1, {"rpm": 2})
    sent += [press.data("motor", NOW + 2, {"rpm": 3}), saw.data("motor", NOW + 3, {"rpm": 4})]
    await intake.append([topic.encode() for topic, _ in sent], [raw for _, raw in sent])
    clock.advance(3_000)
    await intake.pass_time()
    await log.close()


def test_edge_nodes_are_shown(headrace: Headrace, tmp_path: Path) -> None:
    """Who is there, what was missing, what waits and is wanted."""
    asyncio.run(written(tmp_path / "data"))
    told = orjson.loads(headrace("sparkplug", "--data", tmp_path / "data", "--json").stdout)["edge_nodes"]
    shown = headrace("sparkplug", "--data", tmp_path / "data").stdout.decode().splitlines()

    press, saw = told
    assert (press["edge_node"], press["state"], press["devices"]) == ("plant/press", "online", 1)
    assert (press["gaps"], press["missing"], press["seq"], press["wants_rebirth"]) == (1, 1, 3, True)
    assert (saw["state"], saw["waiting"], saw["bdSeq"]) == ("never born", 1, None)
    assert shown[0].split()[:3] == ["edge", "node", "state"]
    assert shown[1].endswith("births wanted")


def test_a_log_without_any(headrace: Headrace, tmp_path: Path) -> None:
    """There is nothing to show."""

    async def made() -> None:
        log = EmbeddedLog(tmp_path / "data")
        await log.create_topics([TopicSpec(topics.RAW, 1)])
        await log.close()

    asyncio.run(made())

    assert orjson.loads(headrace("sparkplug", "--data", tmp_path / "data", "--json").stdout) == {"edge_nodes": []}
