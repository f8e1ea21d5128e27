"""What watchers do with a batch: they find conditions met or not, and hear what that means for the alert."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from headrace.agents.alerting.alert_table import AlertTable, Key
from headrace.agents.alerting.known_devices import KnownDevice
from headrace.agents.alerting.standing import NOTHING, Standing, judge, rested
from headrace.agents.alerting.watch import Sampled
from headrace.engine.batch import Batch
from headrace.engine.operator import State
from headrace.schemas.alert import EXPLAINED_BY, EXPLAINS, Alert, Change, Refusal, Sample, Suppression
from headrace.schemas.rule import AlertRule
from headrace.tables.rule_book import RuleSet

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.alert")


class Finding(NamedTuple):
    """That the condition of a rule is met on a device, or not, and what shows it.

    Args:
        rule, place: the rule, and its place among the others.
        row: place in the batch of the record that shows it; 0 if time does.
        time: event time of that, ms.
        met: whether it is.
        metric, value, threshold: what the condition looks at, and what it is compared with.
        evidence: samples that made it so.
        message_id: of the record; None if it has none.
        by: why it is not met.
        metadata: what else is to be said of it.
    """

    rule: AlertRule
    place: int
    row: int
    device_type: str
    device_id: str
    time: int
    met: bool
    metric: str
    value: float | None = None
    threshold: float | None = None
    evidence: Sequence[Sampled] = ()
    message_id: str | None = None
    by: Literal["condition", "no-data"] = "condition"
    metadata: Mapping[str, Any] = {}

    @property
    def key(self) -> Key:
        """Of the tables."""
        return self.rule.rule_id, self.device_type, self.device_id


class Changed(NamedTuple):
    """One change of an alert; sorts in log order, then in that of the rules.

    Args:
        row, place, number: where it belongs.
        change: what happened.
        alert: as it is now.
        time_ms: when, of the event.
        rule: None if it is gone.
        replaced: id of the alert in whose place it came.
        cause: from now on it explains others, or not any more; None if that did not change.
    """

    row: int
    place: int
    number: int
    change: Change
    alert: Alert
    time_ms: int
    rule: AlertRule | None
    message_id: str | None = None
    command_id: str | None = None
    replaced: str | None = None
    cause: bool | None = None


class Surroundings(Protocol):
    """What an alert has around it when it triggers."""

    def device(self, device_id: str, at_ms: int) -> KnownDevice:
        """What the registry says of a device."""
        ...

    def registry(self, at_ms: int) -> tuple[int, int]:
        """Which state of the registry holds at an append time."""
        ...

    def suppression(self, alert: Alert, snoozed_until: int | None, at_ms: int) -> tuple[Suppression | None, str | None]:
        """Why nobody is to be told of the alert, and the id of the alert that explains it, if one does."""
        ...


class Work:
    """A batch, the rules that apply to all of it, and the alerts as it changes them.

    Args:
        batch: with records of one topic, or an idle one.
        rules: see above.
        table: of alerts.
        now_ms: append time reached when each record of the batch came, (n,), or now for an idle one, (1,).
        early: whether the records have overtaken others, in the priority lane.
    """

    def __init__(
        self,
        batch: Batch,
        rules: RuleSet,
        table: AlertTable,
        now_ms: Sequence[int],
        around: Surroundings,
        *,
        early: bool,
    ) -> None:
        self.batch = batch
        self.partition = batch.partition
        self.rules = rules
        self.now_ms = now_ms
        self.early = early
        self.changes: list[Changed] = []
        self._table = table
        self._around = around
        self.staged: dict[Key, Standing] = {}
        self.refusals: list[tuple[int, Refusal]] = []
        #: Ids of alerts that are forgotten, all at the first record.
        self.forgotten: list[str] = []
        #: What watchers keep for the time of the batch, by the name of a table of theirs.
        self.drafts: dict[str, Any] = {}

    def standing(self, key: Key) -> Standing:
        """What is remembered of the alerts of a rule and device, as the batch has changed it."""
        found = self.staged.get(key)
        return self._table.get(self.partition, key) or NOTHING if found is None else found

    def key_of(self, alert_id: str) -> Key | None:
        """The key of an alert that was the newest of its rule and device before the batch."""
        return self._table.key_of(self.partition, alert_id)

    def applies(self, rule: AlertRule, device_id: str, row: int) -> bool:
        """Whether a rule for the device's type is for this device: by its ids, and its organisation."""
        if rule.device_ids and device_id not in rule.device_ids:
            return False
        if rule.organization_id is None:
            return True
        return self.organisation(device_id, row) == rule.organization_id

    def organisation(self, device_id: str, row: int) -> str | None:
        """Of a device, as the registry has it."""
        return self.device(device_id, row).organisation

    def registry(self) -> tuple[int, int]:
        """Which state of the registry holds for the batch, which is cut where another one does."""
        return self._around.registry(self.now_ms[0])

    def alive(self, device_type: str, device_id: str) -> Collection[str]:
        """Rules with an alert of the device before the batch, or met, or blocked, by id."""
        return self._table.alive(self.partition, device_type, device_id)

    def device(self, device_id: str, row: int) -> KnownDevice:
        """What the registry says of a device when that record of the batch came."""
        return self._around.device(device_id, self.now_ms[row])

    def report(self, finding: Finding) -> Standing:
        """Take a finding; the standing that comes of it.

        Findings of one rule and device come in order. One that changes nothing may be left out, which is the case while
        `Standing.settled` and the condition stays met, or not met.
        """
        before = self.standing(finding.key)
        if self.early and (not finding.met or before.open):
            return before
        if before.alert is not None and before.open and finding.time < before.alert.triggeredAt:
            return before  # triggered in the priority lane, which has overtaken this record
        after, change = judge(
            finding.rule,
            before,
            finding.time,
            finding.value,
            lambda: self._alert(finding),
            met=finding.met,
            by=finding.by,
        )
        if self.early and change is None:
            return before
        if change == "triggered" and self.device(finding.device_id, finding.row).status == "retired":
            return before  # what it had sent before that; its open alerts have ended
        after = rested(after, self.now_ms[finding.row])
        if after != before:
            self.staged[finding.key] = after
        if change is not None:
            assert after.alert is not None
            replaced = before.alert.alertId if change == "triggered" and before.alert is not None else None
            self.add(
                finding.row, finding.place, change, after.alert, finding.time, finding.rule,
                message_id=finding.message_id, replaced=replaced,
            )  # fmt: skip
        return after

    def set(self, key: Key, standing: Standing) -> None:
        """Change a standing otherwise than by a finding."""
        self.staged[key] = standing

    def forget(self, key: Key, alert_id: str) -> None:
        """Keep nothing of an alert that is over."""
        self.staged[key] = NOTHING
        self.forgotten.append(alert_id)

    def refuse(self, row: int, refusal: Refusal) -> None:
        """Note that the command in this row is not carried out."""
        self.refusals.append((row, refusal))

    def suppressed(self, alert: Alert, snoozed_until: int | None, row: int) -> Alert:
        """The alert with what suppresses and explains it at a record; the same revision."""
        found, cause = self._around.suppression(alert, snoozed_until, self.now_ms[row])
        metadata = {name: value for name, value in alert.metadata.items() if name != EXPLAINED_BY}
        if cause is not None:
            metadata[EXPLAINED_BY] = cause
        return alert.model_copy(update={"suppressed": found, "metadata": metadata})

    def add(
        self,
        row: int,
        place: int,
        change: Change,
        alert: Alert,
        time_ms: int,
        rule: AlertRule | None,
        *,
        message_id: str | None = None,
        command_id: str | None = None,
        replaced: str | None = None,
        cause: bool | None = None,
    ) -> None:
        """Note a change of an alert. The first and the last one of an alert that explains others say so themselves."""
        if change in ("triggered", "resolved") and alert.metadata.get(EXPLAINS):
            cause = change == "triggered"
        number = len(self.changes)
        self.changes.append(
            Changed(row, place, number, change, alert, time_ms, rule, message_id, command_id, replaced, cause)
        )

    def open_alerts(self) -> list[tuple[Key, Standing]]:
        """What is open in the partition, as the batch has changed it, sorted by key."""
        keys = {*self._table.open(self.partition), *self.staged}
        return [(key, standing) for key in sorted(keys) if (standing := self.standing(key)).open]

    def _alert(self, finding: Finding) -> Alert:
        rule, at_ms = finding.rule, self.now_ms[finding.row]
        device = self._around.device(finding.device_id, at_ms)
        alert = Alert(
            alertId=alert_id(finding.key, finding.time),
            revision=1,
            ruleId=rule.rule_id,
            ruleName=rule.name,
            organizationId=device.organisation,
            deviceId=finding.device_id,
            deviceName=device.name,
            deviceType=finding.device_type,
            gatewayId=device.gateway,
            severity=rule.severity,
            status="triggered",
            condition=rule.condition.brief,
            metric=finding.metric,
            actualValue=finding.value,
            threshold=finding.threshold,
            triggeredAt=finding.time,
            groupKey=f"{device.gateway or finding.device_id}/{rule.rule_id}",
            actions=rule.actions,
            evidence=tuple(Sample(time=time, value=value, values=values) for time, value, values in finding.evidence),
            metadata={**finding.metadata, **({EXPLAINS: True} if rule.explains else {})},
        )
        return self.suppressed(alert, None, finding.row)


def alert_id(key: Key, triggered_ms: int) -> str:
    """The id of the alert that triggers there and then."""
    return str(uuid.uuid5(_NAMESPACE, "\0".join((*key, str(triggered_ms)))))


class Watcher(Protocol):
    """Finds conditions of some kinds met, or not met any more.

    `watch` must not change its own state directly: see `headrace.engine.operator.Operator`.
    """

    @property
    def topics(self) -> Sequence[str]:
        """What it reads; idle time is that of the first of them."""
        ...

    @property
    def tables(self) -> Sequence[State]:
        """What it alone writes."""
        ...

    def watch(self, work: Work) -> None:
        """Look at a batch of one of its topics, or at idle time of the first of them, and report what it finds."""
        ...

    def is_waiting(self, partition: int) -> bool:
        """Whether time alone may lead to something."""
        ...


@runtime_checkable
class FollowsRules(Protocol):
    """A watcher that wants to know when other rules begin to apply, and when alerts end without it."""

    def follow(self, work: Work, *, new_rules: bool) -> None:
        """Alerts in `Work.staged` were changed by what is around them; comes before `watch`, for any topic.

        Args:
            new_rules: the rules may be others than those before. True after a restart too: then nothing must change.
        """
        ...
