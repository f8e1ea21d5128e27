"""Configuration of the simulated fleet."""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Faults of single messages, on their way.
MESSAGE_FAULTS = ("duplicates", "late", "malformed", "conflicting", "spoofed")


class Kind(StrEnum):
    """What is wrong with a device for a while; the name is also that of the setting."""

    #: Every value of a metric is far off.
    BURST = "burst"
    #: A single value is far off.
    SPIKE = "spike"
    #: A metric moves away slowly, and is right again afterwards.
    DRIFT = "drift"
    #: A metric says the same all the time.
    STUCK = "stuck"
    #: Nothing comes.
    GAP = "gap"
    #: Nothing comes for a moment, and counters start over at 0.
    REBOOT = "reboot"
    #: Event times are off.
    SKEW = "skew"


class SimulatedFleetConfig(BaseModel):
    """How many devices send how often, and what goes wrong.

    Args:
        seed: the same seed gives the same fleet.
        devices: count.
        rate: messages per second of real time, of the whole fleet; duplicates and conflicting ones come on top.
        duplicates, late, malformed, conflicting, spoofed: share of messages with that fault, 0 to 1.
        late_by_ms: shortest and longest time a late message is held back, ms of the clock's time.
        burst, spike, drift, stuck, gap, reboot, skew: share of devices that have such an episode in each round, 0 to 1;
            more than 0 is at least one. A device has one episode in a round at most.
        every: shortest time between two rounds of episodes, seconds of the clock's time.
        quiet: time before the first round, seconds of the clock's time.
        mark_every: every how many sound messages `on_published` is called, count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 7
    devices: int = Field(default=50, ge=1, le=10_000)
    rate: float = Field(default=500.0, gt=0, le=1_000_000)
    duplicates: float = Field(default=0.01, ge=0, le=1)
    late: float = Field(default=0.005, ge=0, le=1)
    malformed: float = Field(default=0.005, ge=0, le=1)
    conflicting: float = Field(default=0.005, ge=0, le=1)
    spoofed: float = Field(default=0.005, ge=0, le=1)
    late_by_ms: tuple[int, int] = (120_000, 480_000)
    burst: float = Field(default=0.06, ge=0, le=1)
    spike: float = Field(default=0.06, ge=0, le=1)
    drift: float = Field(default=0.02, ge=0, le=1)
    stuck: float = Field(default=0.02, ge=0, le=1)
    gap: float = Field(default=0.02, ge=0, le=1)
    reboot: float = Field(default=0.02, ge=0, le=1)
    skew: float = Field(default=0.02, ge=0, le=1)
    every: float = Field(default=600.0, gt=0)
    quiet: float = Field(default=0.0, ge=0)
    mark_every: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(getattr(self, name) for name in MESSAGE_FAULTS) > 1:
            raise ValueError("the shares of faults of messages add up to more than 1")
        if sum(getattr(self, kind) for kind in Kind) > 1:
            raise ValueError("the shares of devices with episodes add up to more than 1")
        if not 0 <= self.late_by_ms[0] <= self.late_by_ms[1]:
            raise ValueError("late_by_ms needs the shorter time first, both 0 or more")
        return self
