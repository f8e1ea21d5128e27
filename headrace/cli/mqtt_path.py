"""Listener and publisher in one process: how the demo's devices, and a replay over MQTT, reach the log."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.listener import MqttListener
from headrace.connectors.mqtt.listener_config import ListenerConfig
from headrace.connectors.mqtt.passwords import password_line
from headrace.connectors.mqtt.publisher import MqttPublisher
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import Clock
from headrace.engine.intake import Intake
from headrace.engine.log import Log

HOST = "127.0.0.1"
#: Who publishes for all devices, with a password made for this run.
USERNAME = "fleet"
#: Messages without PUBACK at a time: one client stands for all devices, and each batch has to reach the disk.
WINDOW = 1_000


@asynccontextmanager
async def mqtt_path(
    folder: Path, log: Log, clock: Clock, intake: Intake, device_type: str
) -> AsyncIterator[MqttPublisher]:
    """headrace's own listener on a free port of the loopback interface, and a client of it.

    What the publisher has drained is in the log. On leaving, what has been received is appended and acknowledged.

    Args:
        folder: for the password file.
        device_type: of every device that publishes to `dt/devices/{device}/telemetry`.
    Raises:
        LogError: the log takes nothing more.
    """
    password = secrets.token_hex(16)
    config = ListenerConfig.model_validate(
        {
            "host": HOST,
            "port": 0,
            "max_inflight": WINDOW,
            "passwords": _written(folder / "listener.users", password_line(USERNAME, password.encode())),
            "grants": [{"users": [USERNAME], "publish": ["dt/devices/+/telemetry"]}],
        }
    )
    profile = TopicProfile(name="devices", topic="dt/devices/{device}/telemetry", device_type=device_type)
    await log.create_topics(MqttListener.topic_specs(1))
    listener, stop = MqttListener(config, RoutedIntake(intake, [profile]), log, clock), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.run(stop))
        ports = await listener.wait_listening()
        try:
            async with MqttPublisher(BrokerAddress(HOST, ports[0], USERNAME, password), window=WINDOW) as publisher:
                yield publisher
        finally:
            stop.set()


def _written(path: Path, text: str) -> Path:
    """A file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path
