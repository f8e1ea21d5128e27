"""The table of who is connected to headrace's own MQTT listener."""

from dataclasses import dataclass, field

import msgspec

from headrace.agents.alerting.planned import PlannedTable
from headrace.agents.alerting.timers import Timers
from headrace.schemas.condition import OfflineCondition
from headrace.schemas.presence import Presence
from headrace.schemas.rule import AlertRule
from headrace.tables.rule_book import RuleSet

#: Clients per device whose connections are followed: the newest.
MOST_CLIENTS = 20

#: Key of the time reached, as if it were that of a device.
NOBODY = ("",)


class Connections(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a device's connections.

    Args:
        heard: append time of the last presence event, ms.
        clients: id of the connection by MQTT client id, oldest first.
        since: event time since which there is none, ms; None while there is one.
        reason, client_id: of the last disconnect.
        device_type: at the last disconnect, as the registry had it.
    """

    heard: int
    clients: dict[str, str] = {}
    since: int | None = None
    reason: str | None = None
    client_id: str | None = None
    device_type: str = ""


def connected(known: Connections | None, event: Presence, heard: int) -> Connections:
    """The connections after one has begun. A client that comes again takes its own place, whatever became of it."""
    clients = {} if known is None else {name: each for name, each in known.clients.items() if name != event.client_id}
    newest = [*clients.items(), (event.client_id, event.connection_id)][-MOST_CLIENTS:]
    return Connections(heard, dict(newest))


def disconnected(known: Connections | None, event: Presence, heard: int, device_type: str) -> Connections | None:
    """The connections after one has ended; None if that changes nothing.

    It does not if the client has another connection by now (taken over), or if others of the device are there.
    """
    if known is not None and known.since is not None:
        return None
    clients = {} if known is None else known.clients
    left = {name: each for name, each in clients.items() if (name, each) != (event.client_id, event.connection_id)}
    if left:
        return None if len(left) == len(clients) else Connections(heard, left)
    return Connections(heard, {}, min(event.time, heard), event.reason, event.client_id, device_type)


@dataclass
class Plan:
    """What follows from the table and the rules, for one partition.

    Args:
        rules: those it was made for.
        now: time reached: append time of the newest event, and idle time since, ms.
        timers: when to look at whom.
        offline: devices without a connection, count.
        own: the offline rules with their places, by id.
    """

    rules: RuleSet
    now: float = 0.0
    timers: Timers = field(default_factory=Timers)
    offline: int = 0
    own: dict[str, tuple[int, AlertRule]] = field(init=False)

    def __post_init__(self) -> None:
        self.own = {
            rule.rule_id: (place, rule)
            for place, rule in enumerate(self.rules.rules)
            if isinstance(rule.condition, OfflineCondition) and rule.status == "active"
        }


class PresenceTable(PlannedTable[tuple[str], Connections, Plan]):
    """Changelog-backed; about 300 bytes per device that ever connected."""

    def __init__(self) -> None:
        super().__init__("alert.presence", msgspec.json.encode, msgspec.json.Decoder(Connections).decode, "device_id")
