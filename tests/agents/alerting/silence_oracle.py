"""Which devices are silent, by going through a log record by record, device by device, rule by rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from headrace.schemas.condition import AbsenceCondition
from headrace.schemas.rule import AlertRule

#: Device, device type, event time and append time, ms.
Spoke = tuple[str, str, int, int]


@dataclass
class Device:
    """One device: what it has said, and what is usual for it."""

    arrived: int
    time: int
    gaps: int = 0
    interval: float = 0.0
    arrival: float = 0.0
    met: dict[str, int] = field(default_factory=dict)
    triggered: dict[str, int] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)

    @property
    def usual(self) -> float:
        return max(self.interval, self.arrival)

    def hear(self, time: int, now: int) -> None:
        weight = min(self.gaps + 1, 20)
        if time > self.time:
            gap = time - self.time
            self.interval = (
                self.interval + (min(gap, 4 * self.interval) - self.interval) / weight if self.interval else gap
            )
            self.time = time
        apart = now - self.arrived
        if apart >= self.usual / 2:
            self.arrival = (
                self.arrival + (min(apart, 4 * self.arrival) - self.arrival) / weight if self.arrival else apart
            )
            self.gaps += 1
        self.arrived = now

    def limit(self, condition: AbsenceCondition) -> float:
        if condition.silent_for != "learned":
            return ceil(condition.silent_for * 1000)
        if self.gaps < 10:
            return inf
        return ceil(max(condition.intervals * self.usual, condition.least * 1000))


def oracle(log: Sequence[Spoke], rules: Sequence[AlertRule]) -> list[tuple[str, str, str, int]]:
    """Rule, device, status and time (ms) of every event, sorted; the cooldown is part of it, flapping is not."""
    devices: dict[tuple[str, str], Device] = {}
    found: list[tuple[str, str, str, int]] = []
    newest = resumed = 0
    conditions = {one.rule_id: one.condition for one in rules}
    for name, kind, time, stamp in log:
        now = max(newest, stamp)
        if newest and now - newest > least_pause(devices, rules) and outage(devices, newest, now):
            resumed = now
        for (other, other_kind), device in devices.items():
            for one in rules:
                condition = conditions[one.rule_id]
                assert isinstance(condition, AbsenceCondition)
                if one.device_type not in ("all", other_kind) or (one.device_ids and other not in one.device_ids):
                    continue
                deadline = max(device.arrived, resumed) + device.limit(condition)
                if deadline < now and one.rule_id not in device.met:
                    device.met[one.rule_id] = int(deadline)
                if one.rule_id in device.met and one.rule_id not in device.triggered:
                    start = max(device.met[one.rule_id], device.ready.get(one.rule_id, 0))
                    if start < now:
                        device.triggered[one.rule_id] = start
                        device.ready[one.rule_id] = start + max(1, round(one.cooldown_period * 1000))
                        found.append((one.rule_id, other, "triggered", start))
        newest = now
        speaker = devices.get((name, kind))
        if speaker is None:
            if any(one.device_type in ("all", kind) for one in rules):
                devices[name, kind] = Device(now, time)
            continue
        found += [(rule_id, name, "resolved", now) for rule_id in speaker.triggered]
        speaker.met, speaker.triggered = {}, {}
        speaker.hear(time, now)
    return sorted(found)


def least_pause(devices: dict[tuple[str, str], Device], rules: Sequence[AlertRule]) -> float:
    """The shortest limit that any rule for these devices may have, ms; at least a second."""
    floors = []
    for one in rules:
        condition = one.condition
        assert isinstance(condition, AbsenceCondition)
        least = condition.least if condition.silent_for == "learned" else condition.silent_for
        if any(one.device_type in ("all", kind) for _, kind in devices):
            floors.append(least * 1000)
    return max(1000.0, min(floors, default=inf))


def outage(devices: dict[tuple[str, str], Device], since: int, until: int) -> bool:
    """Whether most devices have missed their turn between the two times."""
    in_time = [each for each in devices.values() if each.gaps and since - each.arrived <= 1.5 * each.usual]
    missed = [each for each in in_time if until - since > 1.5 * each.usual]
    return len(missed) > 4 and 2 * len(missed) > len(in_time)
