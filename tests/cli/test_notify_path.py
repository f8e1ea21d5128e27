"""From readings to a mailbox: agents decide, delivery sends, and alerts know of it."""

import asyncio
import email
import email.policy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.notify_service import NotifyService
from headrace.cli.settings import Settings
from headrace.connectors.notifications.row import read_notification
from headrace.engine.app import App
from headrace.engine.clock import VirtualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.ledger import lag
from headrace.engine.monitoring import Monitoring
from headrace.schemas import topics
from headrace.schemas.notification import Notification
from headrace.schemas.rule import AlertRule
from headrace.schemas.user import Preferences, User
from headrace.tables.device_types import load_device_types
from headrace.tables.users import UserRegistry
from tests.cli.conftest import Headrace
from tests.connectors.notifications.outbox import all_records, pending, states
from tests.connectors.notifications.receivers import Mailbox

NOW = 1_763_200_800_000
#: A minute, in which a contact gets one mail, takes half a second.
SPEED = 120.0
STORM = 1_000
#: Seconds; a limit for what hangs.
PATIENCE = 300.0
RULE = AlertRule.model_validate({
    "rule_id": "hot", "name": "Hot", "severity": "warning", "cooldown_period": 0,
    "condition": {"metric": "temperature", "operator": ">", "threshold": 80, "duration": 0},
})  # fmt: skip
ANN = User(
    user_id="ann", email="ann@example.org", role="super_admin", preferences=Preferences(subscribed_devices=("*",))
)


class StormClock(VirtualClock):
    """Stands still until it is let go, so that all of a storm comes within a minute on a slow machine too."""

    held = True

    def now_ms(self) -> int:
        return NOW if self.held else super().now_ms()

    def let_go(self) -> None:
        """Go on from here."""
        self.start(NOW)
        self.held = False


@asynccontextmanager
async def running(folder: Path, mailbox: Mailbox) -> AsyncIterator[tuple[EmbeddedLog, StormClock]]:
    """Agents and delivery on a data folder, as in `headrace worker`."""
    mail = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "sender": "alerts@example.com"}
    settings = Settings.model_validate({"channels": {"email": mail}, "log": {"partitions": 2}})
    clock, log = StormClock(NOW, SPEED), EmbeddedLog(folder)
    app = App(GROUP, log, clock=clock, runtime=settings.runtime)
    app.add(build_agents(settings, load_device_types(), [RULE]))
    await app.create_topics(topic_specs(settings), partitions=settings.log.partitions)
    await UserRegistry(log, clock).change({ANN.user_id: ANN})
    service = NotifyService(settings, folder, log, clock, Monitoring(settings.monitor))
    stop = asyncio.Event()
    work = [asyncio.create_task(app.run(stop)), asyncio.create_task(service.run(stop))]
    try:
        yield log, clock
    finally:
        stop.set()
        await asyncio.gather(*work)
        await log.close()


async def outbox(log: EmbeddedLog) -> list[Notification]:
    """What was decided to be sent."""
    return [read_notification(record.value or b"") for record in await all_records(log, topics.OUTBOX)]


def told_of(notifications: list[Notification]) -> int:
    """Alerts that these are about, count."""
    return sum(sum(rule.alerts for rule in each.counts) or len(each.subjects) for each in notifications)


async def wait_decided(log: EmbeddedLog) -> None:
    """Wait until agents have decided about all of the storm."""
    async with asyncio.timeout(PATIENCE):
        while sum((await log.end_offsets(topics.ALERTS)).values()) < STORM:
            await asyncio.sleep(0.05)
        while await lag(log, GROUP, topics.ALERTS) or await lag(log, GROUP, topics.NOTIFICATION_REQUESTS):
            await asyncio.sleep(0.05)


async def wait_told(log: EmbeddedLog) -> None:
    """Wait until mails about all of the storm were sent, and agents have taken what alerts are told of it."""
    async with asyncio.timeout(PATIENCE):
        while told_of(await outbox(log)) < STORM or await pending(log) or await lag(log, GROUP, topics.ALERT_COMMANDS):
            await asyncio.sleep(0.2)


async def test_a_thousand_alerts_in_a_second_are_a_mail_and_a_digest(tmp_path: Path, headrace: Headrace) -> None:
    """Each alert is counted in one of two mails, and what they name knows that somebody was told."""
    data = tmp_path / "data"
    payload = orjson.dumps({"timestamp": NOW, "temp": 84.0, "humidity": 50.0})
    keys = [b"d-%d" % number for number in range(STORM)]
    async with Mailbox().running() as mailbox, running(data, mailbox) as (log, clock):
        await Intake(log, clock).append(
            keys, [payload] * STORM, device_type="environmental", profile="test", sources=b"test"
        )
        await wait_decided(log)
        clock.let_go()
        await wait_told(log)
        decided, sent = await outbox(log), await states(log)

    mails = [email.message_from_bytes(each.original_content or b"", policy=email.policy.default)
             for each in mailbox.mails]  # fmt: skip
    assert sorted(mail["Message-ID"] for mail in mails) == sorted(
        f"<{each.notificationId}@example.com>" for each in decided
    )
    assert {sent[each.notificationId]["status"] for each in decided} == {"sent"}
    first, second = sorted(each.decidedAt for each in decided)
    assert second - first >= 60_000
    assert told_of(decided) == STORM
    listed = await asyncio.to_thread(headrace, "alerts", "list", "--limit", 0, "--json", "--data", data)
    alerts = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(alerts) == STORM
    named = {subject.alert.alertId for each in decided for subject in each.subjects}
    assert {each["alertId"] for each in alerts if each["notificationsSent"] == ["email"]} == named
    shown = await asyncio.to_thread(headrace, "alerts", "show", next(iter(named)), "--data", data)
    assert b"by email" in shown.stdout
