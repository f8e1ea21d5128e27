"""What a worker keeps does not grow with the messages that went through it."""

import asyncio
import gc
import sys
from itertools import pairwise
from statistics import median

import orjson

from headrace.cli.agents import GROUP, Agents, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.settings import Settings
from headrace.engine.app import App
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.ledger import lag
from headrace.engine.operator import topics_of
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules

DEVICES = [b"device-%02d" % number for number in range(50)]
MINUTES, MINUTE_MS = 60, 60_000
#: Midnight, so that no hour begins another day.
BEGIN_MS = 1_750_032_000_000
#: Hours that are not looked at: until then tables and caches fill.
WARM_UP, HOURS = 2, 7


async def send_hour(intake: Intake, clock: ManualClock, hour: int) -> None:
    """A reading a minute of every device, with values that nobody minds."""
    times = [BEGIN_MS + minute * MINUTE_MS for minute in range(hour * MINUTES, hour * MINUTES + MINUTES)]
    clock.follow(times[-1])
    payloads = [
        orjson.dumps({"timestamp": time, "temp": 21.0 + place % 7 / 10, "humidity": 50.0 + place % 5 / 10})
        for place, time in enumerate(times)
    ]
    await intake.append(
        DEVICES * MINUTES,
        [payload for payload in payloads for _ in DEVICES],
        device_type="environmental",
        profile="test",
        timestamps=[time for time in times for _ in DEVICES],
    )


async def wait_done(log: EmbeddedLog, agents: Agents) -> None:
    """Until every agent has committed what there is."""
    read = dict.fromkeys(topic for agent in agents for topic in topics_of(agent))
    while sum([await lag(log, GROUP, topic) for topic in read]):
        await asyncio.sleep(0.01)


async def test_objects_do_not_grow_with_messages() -> None:
    """Hour after hour of readings leaves as many objects behind as the one before, and no cycle for the collector."""
    settings, clock = Settings(), ManualClock(BEGIN_MS)
    agents = build_agents(settings, load_device_types(), load_rules())
    log = EmbeddedLog(MEMORY, newest_bytes=0)
    app, stop = App(GROUP, log, clock=clock), asyncio.Event()
    app.add(agents)
    await app.create_topics(topic_specs(settings), partitions=settings.log.partitions)
    intake = Intake(log, clock)
    running = asyncio.create_task(app.run(stop))
    blocks: list[int] = []
    cycles: list[int] = []

    for hour in range(HOURS):
        await send_hour(intake, clock, hour)
        await wait_done(log, agents)
        cycles.append(gc.collect())
        blocks.append(sys.getallocatedblocks())
    stop.set()
    await running
    await log.close()

    # Of some 10,000 records that went through. Now and then agents keep hold of a batch until the next comes, which is
    # some thousands in one hour and as many less in another.
    assert median(later - before for before, later in pairwise(blocks[WARM_UP - 1 :])) < 250
    assert sum(cycles[WARM_UP:]) < 100
