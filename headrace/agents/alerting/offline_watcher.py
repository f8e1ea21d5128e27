"""Conditions on connections: a device has been offline for some time."""

from collections.abc import Sequence

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.planned import go_through
from headrace.agents.alerting.presence_table import NOBODY, Connections, Plan, PresenceTable, connected, disconnected
from headrace.agents.alerting.standing import Standing
from headrace.agents.alerting.timers import look_again
from headrace.agents.alerting.work import Finding, Work
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.condition import OfflineCondition
from headrace.schemas.presence import Presence
from headrace.schemas.rule import AlertRule

#: Device type of a device that the registry does not know; no type has this name but for rules for "all".
UNKNOWN = "unknown"


class OfflineWatcher:
    """Looks at what headrace's own MQTT listener says of connections.

    A condition is met `offline_for` after the last connection of a device has ended, by the time of the event and idle
    time of `devices.presence`, and not met any more when one begins. A client that another connection of its own has
    taken over is not offline. A device has the type that the registry gives it; "unknown" if that knows none.
    """

    topics = (topics.PRESENCE,)

    def __init__(self) -> None:
        self._table = PresenceTable()
        self.tables: Sequence[State] = (self._table,)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.agents.alerting.work.Watcher`: whether a device is offline, or an alert is to end by time."""
        plan = self._table.plans.get(partition)
        if plan is None:
            return any(known.since is not None for known in self._table.view(partition).values())
        return plan.offline > 0 or len(plan.timers) > 0

    def watch(self, work: Work) -> None:
        """See `headrace.agents.alerting.work.Watcher`."""
        plan = self._table.plans.pop(work.partition, None)
        _Turn(work, self._table, plan).run()


class _Turn:
    """One batch, or idle time."""

    def __init__(self, work: Work, table: PresenceTable, plan: Plan | None) -> None:
        self._work, self._table = work, table
        self._view = table.view(work.partition)
        self._changed: dict[tuple[str], Connections] = {}
        known = plan is not None and plan.rules is work.rules
        self._plan = plan if plan is not None and known else Plan(work.rules, 0.0 if plan is None else plan.now)
        self._rules = self._plan.own
        if not known:
            self._make_plan()

    def run(self) -> None:
        """Go through the batch in order; between its events, time passes."""
        work, plan = self._work, self._plan
        if work.batch.idle is not None:
            plan.now += work.batch.idle.elapsed_ms
            self._pass(0, plan.now)
        else:
            plan.now = go_through(work.batch, Presence, plan.now, self._pass, self._take)
            self._changed[NOBODY] = Connections(round(plan.now))

        def apply() -> None:
            self._table.update(work.partition, self._changed)
            self._table.plans[work.partition] = plan

        work.batch.on_finish(apply)

    def _known(self, device_id: str) -> Connections | None:
        key = (device_id,)
        return self._changed[key] if key in self._changed else self._view.get(key)

    def _take(self, row: int, event: Presence, stamp: int) -> None:
        known = self._known(event.device_id)
        if event.state == "connected":
            self._changed[(event.device_id,)] = connected(known, event, stamp)
            if known is not None and known.since is not None:
                self._plan.offline -= 1
                for place, rule in self._rules.values():
                    self._report(row, place, rule, event.device_id, known, event.time, met=False, back=True)
        elif event.state == "disconnected":
            device_type = self._work.device(event.device_id, row).device_type or UNKNOWN
            after = disconnected(known, event, stamp, device_type)
            if after is None:
                return
            self._changed[(event.device_id,)] = after
            if after.since is None:
                return
            self._plan.offline += 1
            for place, rule in self._rules_of(after.device_type, event.device_id, row):
                if _condition(rule).offline_for == 0:
                    self._report(row, place, rule, event.device_id, after, after.since, met=True)
                else:
                    key = (rule.rule_id, after.device_type, event.device_id)
                    self._again(rule, key, self._work.standing(key), after)

    def _pass(self, row: int, now: float) -> None:
        """Report what is due before `now`."""
        while (found := self._plan.timers.pop(now)) is not None:
            due, (rule_id, device_type, device_id) = found
            known = self._known(device_id)
            if known is None or rule_id not in self._rules:
                continue
            place, rule = self._rules[rule_id]
            offline = known.since is not None and known.device_type == device_type
            if offline and self._work.device(device_id, row).status == "retired":
                continue
            shown = known if offline else Connections(known.heard, device_type=device_type)
            self._report(row, place, rule, device_id, shown, due, met=offline and due >= _due(rule, known))

    def _report(
        self,
        row: int,
        place: int,
        rule: AlertRule,
        device_id: str,
        known: Connections,
        time: int,
        *,
        met: bool,
        back: bool = False,
    ) -> None:
        """Report, and see when to do so again.

        Args:
            known: the connections, since when there is none; of a device that has come back, as they were before.
            back: whether it has.
        """
        key: Key = (rule.rule_id, known.device_type, device_id)
        standing = self._work.standing(key)
        if met or standing.met or standing.open:
            if standing.alert is not None and standing.open:
                # Idle time may have brought the trigger before an event whose own time is earlier.
                time = max(time, standing.alert.triggeredAt)
            seconds = None if known.since is None else (time - known.since) / 1000
            metadata = {"reason": known.reason, "clientId": known.client_id, "offlineSince": known.since}
            standing = self._work.report(
                Finding(
                    rule, place, row, known.device_type, device_id, time, met, "connection", seconds,
                    _condition(rule).offline_for, metadata={name: each for name, each in metadata.items() if each},
                )
            )  # fmt: skip
        self._again(rule, key, standing, Connections(0) if back else known)

    def _again(self, rule: AlertRule, key: Key, standing: Standing, known: Connections) -> None:
        due = None if known.since is None else _due(rule, known)
        moments = [look_again(rule, standing, due or 0), None if standing.met else due]
        self._plan.timers.set(key, min((each for each in moments if each is not None), default=None))

    def _rules_of(self, device_type: str, device_id: str, row: int) -> list[tuple[int, AlertRule]]:
        return [
            (place, rule)
            for place, rule in self._rules.values()
            if rule.applies_to(device_type) and self._work.applies(rule, device_id, row)
        ]

    def _make_plan(self) -> None:
        """What there is to wait for under these rules."""
        plan = self._plan
        for (device_id,), known in self._view.items():
            plan.now = max(plan.now, known.heard)
            if known.since is None:
                continue
            plan.offline += 1
            for _, rule in self._rules_of(known.device_type, device_id, 0):
                key = (rule.rule_id, known.device_type, device_id)
                self._again(rule, key, self._work.standing(key), known)
        for key, standing in self._work.open_alerts():
            if not standing.met and key[0] in self._rules and key not in plan.timers:
                self._again(self._rules[key[0]][1], key, standing, Connections(0))


def _condition(rule: AlertRule) -> OfflineCondition:
    assert isinstance(rule.condition, OfflineCondition)
    return rule.condition


def _due(rule: AlertRule, known: Connections) -> int:
    """Event time from which the condition is met on a device that is offline, ms."""
    assert known.since is not None
    return known.since + round(_condition(rule).offline_for * 1000)
