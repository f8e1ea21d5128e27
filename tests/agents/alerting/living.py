"""The alert agent with several topics, on virtual time, through deaths."""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from typing import Any

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.records import Record, Records
from headrace.engine.testkit import Changelog, Driven, fetched, pass_time, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.rule import AlertRule

T0 = 1_700_000_000_000
SECOND = 1000

#: Topic, key and value, and append time, ms.
Line = tuple[str, str, bytes, int]


def rule(rule_id: str, condition: dict[str, Any], **fields: Any) -> AlertRule:
    """A rule without cooldown and flapping, unless said otherwise."""
    document = {"rule_id": rule_id, "name": rule_id.title(), "condition": condition, "cooldown_period": 0}
    return AlertRule.model_validate({**document, "flapping": None, **fields})


class Living:
    """An agent that keeps what it sent, and goes on from its changelog when it dies.

    Args:
        make: a new agent.
    """

    def __init__(self, make: Callable[[], Alerts]) -> None:
        self._make = make
        self.agent = make()
        self._changelog = Changelog()
        self.driven = Driven({}, [])

    def give(self, lines: Iterable[Line], sizes: Sequence[int] = (), *, deaths: bool = False) -> "Living":
        """Records in this order, in batches of one topic and of these sizes, over and over; in one, if there are none.

        Args:
            deaths: die after every batch.
        """
        lines, wanted = list(lines), cycle(sizes or [len(list(lines)) or 1])
        while lines:
            size, topic = next(wanted), lines[0][0]
            part: list[Line] = []
            while lines and len(part) < size and lines[0][0] == topic:
                part.append(lines.pop(0))
            records = Records([key.encode() for _, key, _, _ in part], [value for *_, value, _ in part], [])
            records.timestamps = [stamp for *_, stamp in part]
            run_batch(self.agent, fetched(records, topic), self.driven)
            if deaths:
                self.die()
        return self

    def die(self) -> None:
        """Go on from what was committed."""
        self._changelog.commit(self.agent)
        self.agent = self._make()
        self._changelog.restore(self.agent)

    def idle(self, topic: str, seconds: float, now_ms: int) -> "Living":
        """Nothing comes from a topic, until now."""
        pass_time(self.agent, self.driven, seconds, now_ms, topic=topic)
        return self

    @property
    def records(self) -> list[Record]:
        """What is in `alerts.v1`."""
        return self.driven.sent.get(topics.ALERTS, [])

    @property
    def alerts(self) -> list[Alert]:
        """The alert after each event."""
        found = [AlertEvent.model_validate_json(record.value or b"").data for record in self.records]
        return [each for each in found if isinstance(each, Alert)]

    @property
    def story(self) -> list[tuple[str, str, str, float]]:
        """Rule, device, status and second from T0 of each event."""
        return [
            (each.ruleId, each.deviceId, each.status, ((each.resolvedAt or each.triggeredAt) - T0) / SECOND)
            for each in self.alerts
        ]
