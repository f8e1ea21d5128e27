"""Interactive queries: the worker that has a device answers, over HTTP too; every other one says who has it."""

import asyncio
import json
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from typing import Any

import pytest

from headrace.agents.rollup import Rollup
from headrace.engine.app import App
from headrace.engine.changelog import changelog_topic
from headrace.engine.errors import ConfigError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.monitor import MonitorSettings
from headrace.engine.monitoring import Monitoring
from headrace.engine.partitioner import Partitioner
from headrace.engine.queries import Queries
from headrace.engine.testkit import readings_log
from headrace.schemas import topics
from tests.engine.runtime.kafka_apps import PATIENCE, SETTINGS, Build, Place, Server, wait_shared

pytestmark = pytest.mark.integration
T0 = 1_700_000_040_000
DEVICES = [f"device-{number}" for number in range(6)]


@pytest.fixture
async def place(kafka: Server) -> AsyncIterator[Place]:
    """Topics of one test, with readings of every device in two minutes."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", SETTINGS)
    await log.start()
    place = Place(kafka, log)
    await place.create(2)
    tables = ("rollup.windows", "rollup.spans")
    await log.create_topics(
        [
            *(TopicSpec(name, 2) for name in (topics.ROLLUPS, topics.LATE)),
            *(TopicSpec(changelog_topic(place.group, name), 2, compacted=True) for name in tables),
        ]
    )
    for device in DEVICES:
        rows = [(device, "env", T0 + minute * 60_000, {"temperature": 20.0 + minute}) for minute in (0, 1)]
        target = TopicPartition(place.topic, Partitioner(2).partition(device.encode()))
        await log.commit(Transaction([Append(target, readings_log(rows, T0))]))
    yield place
    await log.close()


def ask(port: int, path: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, json.loads(body)


async def test_who_has_a_device_answers_and_others_say_who(place: Place) -> None:
    """Of two workers exactly one gives the windows of a device; the other names it."""
    rollups: list[Rollup] = []

    def build() -> Build:
        def add(app: App) -> None:
            rollups.append(Rollup(("1m", "session 10m")))
            rollups[-1].topic = place.topic
            app.add([rollups[-1]])

        return add

    async with place.worker(build()) as one, place.worker(build()) as two:
        await wait_shared([one, two], 2)
        await place.wait_done()
        queries = [Queries(worker.app, [rollup]) for worker, rollup in zip((one, two), rollups, strict=True)]
        monitoring = Monitoring(MonitorSettings(port=0))
        monitoring.answer_about(one.app, rollups[:1])
        over_http = {}
        async with monitoring:
            for device in DEVICES:
                path = f"/tables/rollup.windows?device={device}&from={T0 + 1}"
                over_http[device] = await asyncio.to_thread(ask, monitoring.monitor.port, path)
            listed = await asyncio.to_thread(ask, monitoring.monitor.port, "/tables")
            wrong = [
                await asyncio.to_thread(ask, monitoring.monitor.port, path)
                for path in ("/tables/x?device=a", "/tables/rollup.windows", "/tables/rollup.windows?device=a&from=x")
            ]
        answers = {
            device: [await each.about("rollup.windows", device, T0, T0 + 60_000) for each in queries]
            for device in DEVICES
        }
        (session,) = [
            answer.rows for each in queries if (answer := await each.about("rollup.spans", DEVICES[0])).is_here
        ]
        with pytest.raises(ConfigError, match=r"rollup\.windows"):
            await queries[0].about("nothing", "a")

    assert {answer.is_here for found in answers.values() for answer in found} == {True, False}
    for device, found in answers.items():
        (here,), (elsewhere,) = ([a for a in found if a.is_here is is_here] for is_here in (True, False))
        assert [(row["device_id"], row["start"], row["open"]) for row in here.rows] == [
            (device, T0, False),
            (device, T0 + 60_000, True),
        ]
        assert elsewhere.owner
        assert elsewhere.rows == []
        status, document = over_http[device]
        assert (status, document["here"]) == ((200, True) if found[0].is_here else (421, False))
        assert [row["start"] for row in document["rows"]] == [T0 + 60_000] * found[0].is_here
    assert [(row["start"], row["end"], row["measures"]["temperature"]["count"]) for row in session] == [
        (T0, T0 + 660_000, 2)
    ]
    assert listed == (200, {"tables": ["rollup.windows", "rollup.spans"]})
    assert [status for status, _ in wrong] == [404, 400, 400]
