"""Alerts about real connections: headrace's own listener, a device that is cut off, and the agent on the same log."""

import asyncio

from headrace.agents.alerting.alerts import Alerts
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine.app import App
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from tests.agents.alerting.living import rule
from tests.connectors.mqtt.listening import Listening
from tests.connectors.mqtt.raw_client import connected
from tests.engine.runtime.running import everything, holds, run_until

FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02)


async def test_a_device_that_is_cut_off_is_offline_until_it_reconnects() -> None:
    """Without goodbye; time alone shows that it does not come back."""
    async with Listening() as listening:
        agent = Alerts([rule("gone", {"offline_for": 0.2}, severity="critical")])
        agent.idle_timeout = 0.05
        app = App("g", listening.log, runtime=FAST)
        app.add([agent])
        await app.create_topics(topic_specs(Settings.model_validate({"log": {"partitions": 1}})), partitions=1)

        async def alerts() -> list[Alert]:
            records = await everything(listening.log, topics.ALERTS)
            found = [AlertEvent.model_validate_json(record.value or b"").data for record in records]
            return [each for each in found if isinstance(each, Alert)]

        back, stopped = asyncio.Event(), asyncio.Event()

        async def visit() -> None:
            async with connected(listening.port, "roof-7"):
                pass  # leaves without goodbye
            while len(await alerts()) < 1:
                await asyncio.sleep(0.005)
            async with connected(listening.port, "roof-7"):
                while len(await alerts()) < 2:
                    await asyncio.sleep(0.005)
                back.set()
                await stopped.wait()  # or it would be offline once more

        visiting = asyncio.create_task(visit())
        await run_until(app, holds(lambda: back.is_set() or visiting.done()))
        stopped.set()
        await visiting
        triggered, resolved = await alerts()

    assert (triggered.deviceId, triggered.status, triggered.metadata["reason"]) == (
        "roof-7", "triggered", "connection lost",
    )  # fmt: skip
    assert triggered.triggeredAt == triggered.metadata["offlineSince"] + 200
    assert (resolved.alertId, resolved.status) == (triggered.alertId, "resolved")
    assert resolved.resolved is not None
    assert resolved.resolved.by == "condition"
