"""The alerts of `alerts.state.v1`, as commands list, choose and count them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.engine.errors import ConfigError
from headrace.engine.log import Log, TopicPartition
from headrace.schemas import topics
from headrace.schemas.alert import EXPLAINED_BY, Alert

#: What `--status` knows beside the states themselves.
OPEN, ALL = "open", "all"
#: Alerts with the same beginning of an id that a mistake names.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which alerts; None for any.

    Args:
        status: one of the states, `open` or `all`.
        suppressed: only those that people are not told of, or only the others.
        start_ms, end_ms: triggered from here on, and before this, ms since 1970 UTC.
    """

    status: str = ALL
    severity: str | None = None
    device: str | None = None
    rule: str | None = None
    gateway: str | None = None
    organisation: str | None = None
    suppressed: bool | None = None
    start_ms: int | None = None
    end_ms: int | None = None

    def has(self, alert: Alert) -> bool:
        """Whether the alert is one of them."""
        wanted = (
            (self.severity, alert.severity),
            (self.device, alert.deviceId),
            (self.rule, alert.ruleId),
            (self.organisation, alert.organizationId),
            (self.suppressed, alert.suppressed is not None),
        )
        return (
            all(value is None or value == found for value, found in wanted)
            and (self.gateway is None or self.gateway in (alert.gatewayId, alert.deviceId))
            and (self.status in (ALL, alert.status) or (self.status == OPEN and is_open(alert)))
            and (self.start_ms is None or alert.triggeredAt >= self.start_ms)
            and (self.end_ms is None or alert.triggeredAt < self.end_ms)
        )


def is_open(alert: Alert) -> bool:
    """Whether it is not over."""
    return alert.status != "resolved"


async def read_states(log: Log) -> dict[str, Alert]:
    """The newest alert of each rule and device, by id, the newest trigger first."""
    if topics.ALERT_STATES not in {spec.name for spec in await log.topics()}:
        return {}
    found: list[Alert] = []
    for number in range(log.partitions(topics.ALERT_STATES)):
        async for entries in log.restore(TopicPartition(topics.ALERT_STATES, number)):
            found += [Alert.model_validate_json(value) for _, value in entries]
    found.sort(key=lambda each: (-each.triggeredAt, each.alertId))
    return {each.alertId: each for each in found}


def facets(alerts: Iterable[Alert]) -> dict[str, dict[str, int]]:
    """How many there are by severity, status, rule, and what suppresses them; the most first."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("severity", "status", "rule", "suppressed")}
    for alert in alerts:
        counts["severity"][alert.severity] += 1
        counts["status"][alert.status] += 1
        counts["rule"][alert.ruleId] += 1
        if alert.suppressed is not None:
            counts["suppressed"][alert.suppressed.by] += 1
    return {
        name: dict(sorted(counter.items(), key=lambda each: (-each[1], each[0]))) for name, counter in counts.items()
    }


def explained_by(alerts: Iterable[Alert], alert_id: str) -> list[Alert]:
    """The open alerts that this one explains."""
    return [each for each in alerts if is_open(each) and each.metadata.get(EXPLAINED_BY) == alert_id]


def alert_named(text: str, alerts: Mapping[str, Alert]) -> Alert:
    """The alert with this id, or the only one whose id begins so.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if text in alerts:
        return alerts[text]
    found = [alert for alert_id, alert in alerts.items() if text and alert_id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"there is no alert {text!r} that is the newest of its rule and device; headrace alerts list --status all "
            "shows those there are, headrace query alerts older ones too"
        )
    raise ConfigError(f"{text!r} is the beginning of {len(found):,} ids: {_named(found)}; write more of it")


def _named(found: Sequence[Alert]) -> str:
    more = ", ..." if len(found) > MOST_NAMED else ""
    return ", ".join(f"{each.alertId} ({each.ruleId}, {each.deviceId})" for each in found[:MOST_NAMED]) + more
