"""The device registry: reads and changes the topic `registry.devices`."""

from headrace.engine.clock import Clock
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.device import Device, encode_device
from headrace.tables.live_registry import LiveRegistry


class DeviceRegistry(LiveRegistry[Device]):
    """The devices of an installation; see `LiveRegistry` for when a change applies.

    Args:
        log: where the topic is, or will be.
        clock: real time.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        super().__init__(log, topics.DEVICES, encode_device, clock)
