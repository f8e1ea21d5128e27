"""The watchers in an app on a log: deaths at every step, and time in which nothing comes."""

import asyncio
from itertools import groupby
from pathlib import Path

import pytest

from headrace.agents.alerting.alerts import Alerts
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.records import Records
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.schemas import topics
from headrace.schemas.alert import AlertEvent
from tests.agents.alerting import test_anomaly_watcher, test_offline_watcher
from tests.agents.alerting.living import SECOND, T0, Line, Living, rule
from tests.agents.alerting.test_absence_watcher import every, lines, merged
from tests.engine.runtime.lives import Life
from tests.engine.runtime.running import committed, everything, run_until

FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.02, max_batch_records=10)
SETTINGS = Settings.model_validate({"log": {"partitions": 1}})
READ = (topics.READINGS, topics.PRESENCE, topics.ANOMALIES)
RULES = [
    rule("quiet", {"silent_for": 30}, cooldown_period=200),
    rule("late", {"silent_for": "learned", "intervals": 3, "least": 5}),
    rule("gone", {"offline_for": 20}, flapping={"triggers": 3, "within": 300}),
    rule("odd", {"anomaly_score": 4, "clear_after": 60}),
]


class Counting(Alerts):
    """Counts its batches."""

    batches = 0

    def process(self, batch: Batch) -> None:
        """As `Alerts`."""
        Counting.batches += 1
        super().process(batch)


class HandClock(ManualClock):
    """Real seconds too pass only by hand; waiting takes its time."""

    def monotonic(self) -> float:
        return self.now_ms() / 1000


def history() -> list[Line]:
    """What happens to devices of which each is about one topic: then the order between topics makes no difference."""
    spoken = merged(
        *(every(f"meter-{place}", 3 + place, place, 600 - 100 * place) for place in range(3)),
        every("meter-0", 3, 900, 1000),
        every("meter-3", 5, 0, 1000),
    )
    presence, found = [], []
    for number, second in enumerate(range(0, 1000, 40)):
        state = "disconnected" if number % 2 else "connected"
        presence.append(test_offline_watcher.event(second, "phone", state, str(number // 2)))
        found.append(
            test_anomaly_watcher.anomaly(second * (1 + number % 3), "pump", appended=second, score=3 + number % 4)
        )
    return [*lines(spoken), *presence, *found]


async def append(log: EmbeddedLog, some: list[Line]) -> None:
    """Each topic's records in one commit."""
    by_topic = {
        topic: list(part) for topic, part in groupby(sorted(some, key=lambda line: line[0]), lambda line: line[0])
    }
    appends = [
        Append(
            TopicPartition(topic, 0),
            Records(
                [key.encode() for _, key, _, _ in part], [value for *_, value, _ in part], [one[3] for one in part]
            ),
        )
        for topic, part in by_topic.items()
    ]
    if appends:
        await log.commit(Transaction(appends))


async def app_of(log: EmbeddedLog, clock: ManualClock | None = None) -> App:
    """With the agent; time passes only where a clock is given."""
    agent = Counting(RULES)
    agent.idle_timeout = None if clock is None else 5.0
    app = App("g", log, clock=clock, runtime=FAST)
    app.add([agent])
    await app.create_topics(topic_specs(SETTINGS), partitions=1)
    return app


async def make_topics(log: EmbeddedLog) -> None:
    await log.create_topics(topic_specs(SETTINGS))


def test_death_at_every_step_changes_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Workers die a few steps of their event loop after some batch: no alert is missed or comes twice."""
    some, deaths = history(), max(12, pytestconfig.getoption("--examples") // 40)
    by_time = sorted(some, key=lambda line: line[3])
    for death in range(deaths):
        part = by_time[death * len(by_time) // deaths : (death + 1) * len(by_time) // deaths]

        async def prepare(log: EmbeddedLog, part: list[Line] = part) -> None:
            await make_topics(log)
            await append(log, part)

        least = Counting.batches + 1 + death % 3
        Life(tmp_path, prepare, app_of, *READ).run(1 + death * 5 % 24, lambda: Counting.batches >= least)  # noqa: B023
    Life(tmp_path, make_topics, app_of, *READ).run()

    async def read() -> list[bytes]:
        log = EmbeddedLog(tmp_path)
        await make_topics(log)
        found = [record.value or b"" for record in await everything(log, topics.ALERTS)]
        await log.close()
        return found

    expected = Living(lambda: Alerts(RULES)).give(some)
    assert len(expected.records) > 20
    assert sorted(asyncio.run(read())) == sorted(record.value or b"" for record in expected.records)


async def test_time_passes_for_each_watcher() -> None:
    """A device that falls silent, one that is offline, and one that is anomalous no more, when nothing comes at all."""
    log, clock = EmbeddedLog(MEMORY), HandClock(T0)
    await make_topics(log)
    await append(
        log,
        [
            *lines(every("meter", 1, 0, 3)),
            test_offline_watcher.event(2, "phone", "disconnected"),
            test_anomaly_watcher.anomaly(2, "pump"),
        ],
    )

    async def over() -> bool:
        clock.advance(1000)
        return len(await everything(log, topics.ALERTS)) == 4

    await run_until(await app_of(log, clock), over)
    await run_until(await app_of(log, clock), committed(log, "g", *READ))

    events = [
        AlertEvent.model_validate_json(record.value or b"").data for record in await everything(log, topics.ALERTS)
    ]
    told = {(one.deviceId, one.status, (one.resolvedAt or one.triggeredAt) - T0) for one in events}  # type: ignore[union-attr]
    assert told == {
        ("meter", "triggered", 32 * SECOND),
        ("phone", "triggered", 22 * SECOND),
        ("pump", "triggered", 2 * SECOND),
        ("pump", "resolved", 62 * SECOND),
    }
    await log.close()
