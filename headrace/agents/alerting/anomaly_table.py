"""The table of anomalies that keep alerts open."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.planned import PlannedTable
from headrace.agents.alerting.timers import Timers
from headrace.schemas.condition import AnomalyCondition
from headrace.schemas.rule import AlertRule
from headrace.tables.rule_book import RuleSet

#: Key of the time reached, as if it were that of a rule.
NOBODY: Key = ("", "", "")


class Active(msgspec.Struct, frozen=True, array_like=True):
    """The newest anomaly that meets a rule's condition on a device, until the condition is cleared.

    Args:
        time: its event time, ms.
        appended: its append time, ms.
    """

    time: int
    appended: int


@dataclass
class Plan:
    """What follows from the table and the rules, for one partition.

    Args:
        rules: those it was made for.
        now: time reached: append time of the newest anomaly, and idle time since, ms.
        timers: by append time, when conditions are cleared although nothing comes from their devices.
        by_device: event time at which a condition is cleared, ms, by key; by device type and device.
        own: the anomaly rules with their places.
    """

    rules: RuleSet
    now: float = 0.0
    timers: Timers = field(default_factory=Timers)
    by_device: dict[str, dict[str, dict[Key, int]]] = field(default_factory=dict)
    own: list[tuple[int, AlertRule]] = field(init=False)

    def __post_init__(self) -> None:
        self.own = [
            (place, rule)
            for place, rule in enumerate(self.rules.rules)
            if isinstance(rule.condition, AnomalyCondition) and rule.status == "active"
        ]

    def set(self, key: Key, due: int | None, due_append: int | None) -> None:
        """When a key's condition is cleared, by event and by append time, ms; None: it is not met."""
        _, device_type, device_id = key
        self.timers.set(key, due_append)
        devices = self.by_device.setdefault(device_type, {})
        if due is not None:
            devices.setdefault(device_id, {})[key] = due
        elif key in devices.get(device_id, {}):
            del devices[device_id][key]
            if not devices[device_id]:
                del devices[device_id]

    def over(self, device_type: str, device_id: str, time: int) -> Iterator[tuple[int, Key]]:
        """Conditions on a device that are cleared before an event time, and when, in order."""
        found = self.by_device.get(device_type, {}).get(device_id)
        if found:
            yield from sorted((due, key) for key, due in found.items() if due < time)


class AnomalyTable(PlannedTable[Key, Active, Plan]):
    """Changelog-backed; about 200 bytes per rule and device whose condition is met."""

    def __init__(self) -> None:
        super().__init__(
            "alert.anomalies",
            msgspec.json.encode,
            msgspec.json.Decoder(Active).decode,
            "rule_id",
            "device_type",
            "device_id",
        )
