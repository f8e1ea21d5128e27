"""An alert from the device's message to the end, on a real log and a real PostgreSQL, on virtual time."""

import asyncio
from pathlib import Path

import orjson
import pytest

from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from tests.cli.test_pipeline import feed, fetch, nothing, records

pytestmark = pytest.mark.integration
NOW = 1_750_000_000_000
MINUTE = 60_000
#: As an API would get it.
RULE = AlertRule.model_validate({
    "ruleId": "rule-temp-high",
    "name": "High Temperature Alert",
    "description": "Alert when temperature exceeds 40°C",
    "deviceType": "environmental",
    "deviceIds": [],
    "condition": {"metric": "temperature", "operator": ">", "threshold": 40, "duration": 300},
    "severity": "warning",
    "actions": {"notifications": ["email", "push"], "webhooks": []},
    "cooldownPeriod": 900,
    "schedule": {"type": "always"},
})  # fmt: skip


async def test_a_device_gets_too_hot_and_cools_down(tmp_path: Path) -> None:
    """45 °C for the rule's five minutes: "temperature > 40" triggered; it falls: resolved. Each once, and stored."""
    temperatures = [25] * 3 + [45] * 8 + [35] * 3
    clock = ManualClock(NOW)
    async with Pipeline(tmp_path, Settings(), load_device_types(), [RULE], clock) as pipeline:
        for minute, temperature in enumerate(temperatures):
            clock.follow(NOW + minute * MINUTE)
            payload = orjson.dumps({"timestamp": NOW + minute * MINUTE, "temp": temperature})
            await feed(pipeline, [b"office"], [payload])

        await pipeline.run(nothing, asyncio.Event())

        events = [AlertEvent.model_validate_json(each.value or b"") for each in await records(pipeline, topics.ALERTS)]
        partitions = range(pipeline.log.partitions(topics.ALERT_STATES))
        states = [
            state
            for number in partitions
            async for entries in pipeline.log.restore(TopicPartition(topics.ALERT_STATES, number))
            for state in entries
        ]
        (row,) = await fetch(pipeline, "SELECT alert_id, status, document FROM alerts")
    triggered, resolved = (each.data for each in events)
    assert isinstance(triggered, Alert)
    assert isinstance(resolved, Alert)
    assert [each.type.rpartition(".")[2] for each in events] == ["triggered", "resolved"]
    assert (triggered.condition, triggered.actualValue, triggered.threshold) == ("temperature > 40", 45, 40)
    assert triggered.triggeredAt == NOW + 8 * MINUTE
    assert [sample.value for sample in triggered.evidence] == [45] * 6
    assert triggered.actions.notifications == ("email", "push")
    assert (resolved.alertId, resolved.resolvedAt) == (triggered.alertId, NOW + 11 * MINUTE)
    assert resolved.resolved is not None
    assert resolved.resolved.by == "condition"
    assert [(key.decode(), Alert.model_validate_json(value)) for key, value in states] == [(resolved.alertId, resolved)]
    assert (str(row["alert_id"]), row["status"]) == (resolved.alertId, "resolved")
