"""Configuration of the simulated fleet."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SimulatedFleetConfig(BaseModel):
    """How many devices send how often, and what goes wrong.

    Args:
        seed: the same seed gives the same fleet.
        devices: count.
        rate: messages per second of real time, of the whole fleet; duplicates and conflicting ones come on top.
        duplicates, late, malformed, conflicting, spoofed: share of messages with that fault, 0 to 1.
        late_by_ms: shortest and longest time a late message is held back, ms of the clock's time.
        device_type: the device type that the payloads are made for.
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
    device_type: str = "environmental"
    mark_every: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.duplicates + self.late + self.malformed + self.conflicting + self.spoofed > 1:
            raise ValueError("the shares of faults add up to more than 1")
        if not 0 <= self.late_by_ms[0] <= self.late_by_ms[1]:
            raise ValueError("late_by_ms needs the shorter time first, both 0 or more")
        return self
