"""Devices that get hot and cool down, a person who acknowledges, and what of it must be in the log at the end."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from headrace.cli.agents import GROUP
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.ledger import lag
from headrace.engine.log import Append, Log, TopicPartition, Transaction
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics

DEVICES = 60
#: Event time from one reading of a device to the next, ms, and from where on.
STEP_MS = 20_000
START_MS = 1_750_000_000_000
#: Seconds between two appends, each a reading of every device, if nothing else is said.
PAUSE = 0.03
#: Messages that wait for a worker, of which there is none for long on a slow machine: what comes of them fits into the
#: list of one person.
MOST_BEHIND = 200 * DEVICES
#: Of the alerts that the person sees, so many are acknowledged.
CARES = 0.3
#: Seconds until there is nothing left to do after the last fault: includes session timeouts and starts of workers.
DRAIN_TIMEOUT = 300.0
#: At once, with a cooldown; sustained, with hysteresis; and one whose cooldown outlasts short episodes.
RULES = """
[[rule]]
rule_id = "hot"
name = "Hot"
cooldown_period = 0
flapping = false
condition = { metric = "temperature", operator = ">", threshold = 40 }

[[rule]]
rule_id = "sustained"
name = "Hot for a minute"
severity = "critical"
cooldown_period = 0
flapping = false
condition = { metric = "temperature", operator = ">", threshold = 40, clear = 30, duration = 60 }

[[rule]]
rule_id = "rare"
name = "Hot, not again so soon"
cooldown_period = 600
flapping = false
condition = { metric = "temperature", operator = ">", threshold = 40 }
"""

#: Trigger and end of an alert, event time in ms; no end while it is open.
Episode = tuple[int, int | None]
clock = SystemClock()


def episodes(
    samples: Sequence[tuple[int, float]], *, clear: float = 40, duration: int = 0, cooldown: int = 0
) -> Iterator[Episode]:
    """The alerts of one device under a rule "> 40", from its readings: what the agents must find, said plainly.

    Args:
        samples: event time (ms) and value, in order.
        clear: at or below this it is not met any more.
        duration, cooldown: of the rule, ms.
    """
    met, since, opened, quiet_until = False, None, None, 0
    for time, value in samples:
        holds = value > (clear if met else 40)
        since = (time if since is None else since) if holds else None
        met = holds and (met or (since is not None and time - since >= duration))
        if opened is None and met and time >= quiet_until:
            opened, quiet_until = time, time + cooldown
        elif opened is not None and not met:
            yield opened, time
            opened = None
    if opened is not None:
        yield opened, None


class AlertLoad:
    """Sends readings and acknowledgements until it is told to stop.

    Args:
        log: where to.
        seed: of the temperatures, and of what the person cares about.
        pause: seconds between two appends.
    """

    def __init__(self, log: Log, seed: int, pause: float = PAUSE) -> None:
        self._log = log
        self._pause = pause
        self._rng = random.Random(seed)
        self._temperatures = random.Random(seed + 1)
        self._stop, self._over = asyncio.Event(), asyncio.Event()
        self._hot = [False] * DEVICES
        self._steps = 0
        self.samples: dict[str, list[tuple[int, float]]] = {f"device-{n}": [] for n in range(DEVICES)}
        #: Ids of the alerts that the person wanted to acknowledge.
        self.asked: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send for as long as the `async with` lasts; then wait until everything was read and committed."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send())
            caring = group.create_task(self._acknowledge())
            try:
                yield
            finally:
                self._stop.set()
            await sending
            await self._drain(topics.RAW, topics.READINGS)
            self._over.set()
            await caring
            await self._drain(topics.ALERT_COMMANDS)

    async def wait_alerts(self, more: int = 1) -> None:
        """Wait until there are so many more events."""
        before = sum((await self._log.end_offsets(topics.ALERTS)).values())
        async with asyncio.timeout(DRAIN_TIMEOUT):
            while sum((await self._log.end_offsets(topics.ALERTS)).values()) < before + more:
                await clock.sleep(0.05)

    async def _drain(self, *names: str) -> None:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            for topic in names:
                while await lag(self._log, GROUP, topic):
                    await clock.sleep(0.1)

    async def _send(self) -> None:
        intake = Intake(self._log, clock)
        while not self._stop.is_set():
            time = START_MS + self._steps * STEP_MS
            values = [self._temperature(number) for number in range(DEVICES)]
            await intake.append(
                [name.encode() for name in self.samples],
                [orjson.dumps({"timestamp": time, "temp": value}) for value in values],
                device_type="environmental",
                profile="chaos",
            )
            for (_, known), value in zip(self.samples.items(), values, strict=True):
                known.append((time, value))
            self._steps += 1
            await clock.sleep(self._pause)
            while not self._steps % 10 and await lag(self._log, GROUP, topics.RAW) > MOST_BEHIND:
                await clock.sleep(self._pause)

    def _temperature(self, number: int) -> float:
        rng = self._temperatures
        # Half of the devices take their time, so that a person can.
        if rng.random() < (0.2 if number % 2 else 0.01):
            self._hot[number] = not self._hot[number]
        # Now and then between the thresholds, where hysteresis tells them apart.
        return round(rng.uniform(41, 55) if self._hot[number] else rng.choice((rng.uniform(10, 29), 35.0)), 1)

    async def _acknowledge(self) -> None:
        """Read the alerts, and acknowledge some, each command twice."""
        partitioner = Partitioner(self._log.partitions(topics.ALERT_COMMANDS))
        positions = await first_offsets(self._log, topics.ALERTS)
        async with reading(self._log) as reader:
            while not self._over.is_set():
                await reader.wait(positions, 0.2)
                for target, position in list(positions.items()):
                    fetched = await reader.read(target, position, 100)
                    if fetched is None:
                        continue
                    positions[target] = fetched.next_offset
                    for value in fetched.records.values:
                        event = orjson.loads(value or b"")
                        if event["type"].endswith("triggered") and self._rng.random() < CARES:
                            await self._command(partitioner, event["data"])

    async def _command(self, partitioner: Partitioner, alert: dict[str, Any]) -> None:
        device, alert_id = alert["deviceId"].encode(), alert["alertId"]
        command = {
            "command": "acknowledge", "commandId": f"ack {alert_id}", "alertId": alert_id,
            "deviceId": alert["deviceId"], "userId": "ada",
        }  # fmt: skip
        records = Records([device] * 2, [orjson.dumps(command)] * 2, [clock.now_ms()] * 2)
        target = TopicPartition(topics.ALERT_COMMANDS, partitioner.partition(device))
        await self._log.commit(Transaction([Append(target, records)]))
        self.asked.add(alert_id)

    async def check(self) -> dict[str, int]:
        """Every episode triggered and resolved exactly once, nothing else; states are the newest events' data.

        Raises:
            AssertionError: it is not so.
        """
        events = [event async for event in _events(self._log)]
        by_alert: dict[str, list[dict[str, Any]]] = defaultdict(list)
        refused: set[str] = set()
        for event in events:
            if event["type"].endswith("refused"):
                refused.add(event["data"]["alertId"])
            else:
                by_alert[event["data"]["alertId"]].append(event)
        found: dict[tuple[str, str], list[Episode]] = defaultdict(list)
        for changes in by_alert.values():
            names = [each["type"].rpartition(".")[2] for each in changes]
            assert [each["data"]["revision"] for each in changes] == list(range(1, len(changes) + 1))
            assert names in (
                ["triggered"], ["triggered", "resolved"], ["triggered", "acknowledged"],
                ["triggered", "acknowledged", "resolved"],
            ), names  # fmt: skip
            alert = changes[-1]["data"]
            found[alert["ruleId"], alert["deviceId"]].append((alert["triggeredAt"], alert.get("resolvedAt")))
        expected = self.expected()
        assert {key: sorted(each) for key, each in found.items()} == expected
        acknowledged = {
            alert_id
            for alert_id, changes in by_alert.items()
            if any("acknowledgedAt" in each["data"] for each in changes)
        }
        assert acknowledged | refused == self.asked
        assert not acknowledged & refused
        await self._check_states(by_alert, expected)
        return {
            "episodes": sum(map(len, expected.values())),
            "open": sum(each[-1][1] is None for each in expected.values()),
            "acknowledged": len(acknowledged),
            "refused": len(refused),
        }

    def expected(self) -> dict[tuple[str, str], list[Episode]]:
        """Episodes by rule and device."""
        found = {
            (rule, device): list(episodes(samples, **parameters))
            for device, samples in self.samples.items()
            for rule, parameters in (
                ("hot", {}),
                ("sustained", {"clear": 30, "duration": 60_000}),
                ("rare", {"cooldown": 600_000}),
            )
        }
        return {key: each for key, each in found.items() if each}

    async def _check_states(
        self, by_alert: dict[str, list[dict[str, Any]]], expected: dict[tuple[str, str], list[Episode]]
    ) -> None:
        states: dict[str, Any] = {}
        for number in range(self._log.partitions(topics.ALERT_STATES)):
            async for entries in self._log.restore(TopicPartition(topics.ALERT_STATES, number)):
                states |= {key.decode(): orjson.loads(value) for key, value in entries}
        assert states == {alert_id: by_alert[alert_id][-1]["data"] for alert_id in states}
        newest = {
            (each["ruleId"], each["deviceId"]): (each["triggeredAt"], each.get("resolvedAt"))
            for each in states.values()
        }
        assert len(newest) == len(states)
        assert newest == {key: each[-1] for key, each in expected.items()}


async def _events(log: Log) -> AsyncIterator[dict[str, Any]]:
    starts = await first_offsets(log, topics.ALERTS)
    async with reading(log) as reader:
        for target, end in (await log.end_offsets(topics.ALERTS)).items():
            async for fetched in read_range(reader, target, starts[target], end):
                for value in fetched.records.values:
                    yield orjson.loads(value or b"")
