"""A listener at work, for tests."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.engine.clock import Clock, ManualClock, SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import TopicPartition
from headrace.schemas import topics


class RecordingIntake:
    """Takes messages into memory; `gate` holds appends back, `fail` makes them raise."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.fail = False

    def takes(self, topic: bytes) -> bool:
        """As `RoutedIntake.takes`."""
        return topic.endswith(b"/telemetry")

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes], again: Sequence[int] = ()) -> None:
        """As `RoutedIntake.append`."""
        self.entered.set()
        await self.gate.wait()
        if self.fail:
            raise LogError("the disk is full")
        self.messages += zip(topics, payloads, strict=True)

    @property
    def payloads(self) -> list[bytes]:
        """What was appended, in order."""
        return [payload for _, payload in self.messages]


class HandClock(ManualClock):
    """Stands still until `advance`, and with it whoever sleeps."""

    def __init__(self) -> None:
        super().__init__(1_750_000_000_000)
        self._moved = asyncio.Event()

    def monotonic(self) -> float:
        return self.now_ms() / 1000

    async def sleep(self, delay: float) -> None:
        due_ms = self.now_ms() + round(delay * 1000)
        while self.now_ms() < due_ms:
            await self._moved.wait()

    def advance(self, duration_ms: int) -> None:
        """Move on; sleepers whose time has come look around before anything that is sent now arrives."""
        super().advance(duration_ms)
        self._moved.set()
        self._moved = asyncio.Event()


class Listening:
    """A listener on a free port; leaving the block stops it."""

    def __init__(self, clock: Clock | None = None, **settings: Any) -> None:
        config = ListenerConfig.model_validate({"port": 0, "anonymous": True, **settings})
        self.intake = RecordingIntake()
        self.log = EmbeddedLog(MEMORY)
        self._config = config
        self._clock = clock or SystemClock()
        self.stop = asyncio.Event()
        self.port = self.tls_port = 0

    async def __aenter__(self) -> "Listening":
        await self.log.create_topics(MqttListener.topic_specs(1))
        self.listener = MqttListener(self._config, self.intake, self.log, self._clock)
        self.task = asyncio.create_task(self.listener.run(self.stop))
        waiting = asyncio.create_task(self.listener.wait_listening())
        await asyncio.wait([self.task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            waiting.cancel()
            await self.log.close()
            self.task.result()
        ports = waiting.result()
        self.port, self.tls_port = ports[0], ports[-1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.intake.gate.set()
        self.stop.set()
        try:
            if not self.task.done():
                await self.task
        finally:
            await self.log.close()

    async def presence(self) -> list[dict[str, object]]:
        """Presence events so far, without what is different each time."""
        fetched = await self.log.read(TopicPartition(topics.PRESENCE, 0), 0, 1000)
        events = [orjson.loads(value or b"") for value in fetched.records.values] if fetched else []
        return [{name: event[name] for name in event if name not in ("time", "connection_id")} for event in events]


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
