"""When open alerts have to be looked at again, although nothing came from their devices, and which of them.

After each record every open alert is what its rule, the registry, silences and causes make of it at the append time
reached. So only what changed since the record before is looked at: keys of the replicated tables that were changed,
and moments that were known before, at which a change applies, a silence begins or ends, or a snooze is over.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from headrace.agents.alerting.alert_table import AlertTable, Key
from headrace.agents.alerting.standing import Standing
from headrace.agents.alerting.surroundings import Around, gateway_of
from headrace.schemas.rule import AlertRule
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import RuleSet


class Moment(NamedTuple):
    """At `time_ms`, what is called this has to be looked at.

    Args:
        kind: what the name is of.
        name: device id, silence id, key of a cause; of a snooze or an end, the alert's id.
    """

    time_ms: int
    kind: str
    name: str


class Plan(NamedTuple):
    """What to look at before a batch, and what is known of later.

    Args:
        keys: of alerts to look at, sorted; of those that are over, the ones to forget.
        later: moments after the batch's first record, a heap.
        revisions: of the tables that it is about.
        rules: likewise.
    """

    keys: list[Key]
    later: list[Moment]
    revisions: tuple[int, int, int]
    rules: RuleSet

    def cut(self, now_ms: Sequence[int]) -> int | None:
        """The first row after the first one that reaches a moment; None if none does."""
        if not self.later:
            return None
        return next((row for row, now in enumerate(now_ms) if row and now >= self.later[0].time_ms), None)


class Moments:
    """Makes plans for the batches of one partition.

    Args:
        table: of alerts.
        around: the replicated tables.
        keep_over_ms: append time for which alerts that are over, and whose condition is not met, are known.
    """

    def __init__(self, table: AlertTable, partition: int, around: Around, keep_over_ms: int) -> None:
        self._table = table
        self._partition = partition
        self._around = around
        self._keep_over_ms = keep_over_ms
        #: What it knows is of no use once somebody else may have had the partition.
        self._epoch = table.epoch(partition)
        self._done: Plan | None = None
        self._reached_ms = 0

    @property
    def reached_ms(self) -> int:
        """Append time of the last batch's last record, or until when nothing came since, ms; 0 if that is not known."""
        self._start_over_elsewhere()
        return self._reached_ms

    @property
    def rules(self) -> RuleSet | None:
        """Those of the last batch; None if they are not known."""
        self._start_over_elsewhere()
        return None if self._done is None else self._done.rules

    def plan(self, rules: RuleSet, now_ms: int) -> Plan:
        """What to look at before a record at append time `now_ms`; changes nothing.

        Args:
            rules: that apply to it.
        """
        tables: tuple[Replicated[Any], ...] = (self._around.devices, self._around.silences, self._around.causes)
        revisions = tuple(table.revision for table in tables)
        assert len(revisions) == 3
        self._start_over_elsewhere()
        done = self._done
        changed = None if done is None else [
            table.changed_since(revision) for table, revision in zip(tables, done.revisions, strict=True)
        ]  # fmt: skip
        if done is None or changed is None or None in changed:
            later = self._all_later(now_ms)
            heapify(later)
            return Plan(sorted(self._table.view(self._partition)), later, revisions, rules)
        found: set[Key] = set()
        later = done.later
        if any(changed) or (later and later[0].time_ms <= now_ms):
            later = list(later)
            names = {kind: set(each or ()) for kind, each in zip(_KINDS, changed, strict=True)}
            for kind in _KINDS:
                for name in names[kind]:
                    for moment in self._of(kind, name, now_ms):
                        heappush(later, moment)
            while later and later[0].time_ms <= now_ms:
                moment = heappop(later)
                names.setdefault(moment.kind, set()).add(moment.name)
            found = self._affected(names, now_ms)
        if done.rules is not rules:
            before, after = rules_by_id(done.rules), rules_by_id(rules)
            found |= {key for key in self._table.open(self._partition) if before.get(key[0]) != after.get(key[0])}
        return Plan(sorted(found), later, revisions, rules)

    def carried_out(self, plan: Plan, reached_ms: int, more: Sequence[Moment] = ()) -> None:
        """The batch with this plan is finished, at this append time; what it did leads to these moments."""
        later = plan.later
        for moment in more:
            heappush(later, moment)
        self._done = plan
        self._reached_ms = reached_ms

    def _start_over_elsewhere(self) -> None:
        """Forget what is known, if somebody else may have had the partition."""
        if self._epoch != self._table.epoch(self._partition):
            self._epoch, self._done, self._reached_ms = self._table.epoch(self._partition), None, 0

    def _all_later(self, now_ms: int) -> list[Moment]:
        around = self._around
        found = [Moment(time, "device", name) for time, name in around.devices.later(now_ms)]
        found += [Moment(time, "cause", name) for time, name in around.causes.later(now_ms)]
        found += [moment for name in around.silences.keys() for moment in self._of("silence", name, now_ms)]  # noqa: SIM118
        for standing in self._table.view(self._partition).values():
            found += moments_of(standing, now_ms, self._keep_over_ms)
        return found

    def _of(self, kind: str, name: str, now_ms: int) -> Iterator[Moment]:
        """Moments after `now_ms` that a key of a replicated table leads to."""
        around = self._around
        if kind == "silence":
            for time, silence in around.silences.versions(name):
                times = (time,) if silence is None else (time, silence.starts_at, silence.ends_at)
                yield from (Moment(each, kind, name) for each in times if each > now_ms)
        else:
            table = around.devices if kind == "device" else around.causes
            yield from (Moment(time, kind, name) for time, _ in table.versions(name) if time > now_ms)

    def _affected(self, names: dict[str, set[str]], now_ms: int) -> set[Key]:
        """Keys of the alerts that may not be any more what they were."""
        table, partition = self._table, self._partition
        found = {key for name in (*names.get("snooze", ()), *names.get("over", ())) if (key := self._key(name))}
        for name in names["silence"]:
            for _, silence in self._around.silences.versions(name):
                if silence is None:
                    continue
                if silence.device_ids or silence.gateway_ids:
                    for device_id in silence.device_ids or silence.gateway_ids:
                        found.update(table.near(partition, device_id))
                else:
                    wanted = set(silence.rule_ids)
                    found.update(key for key in table.open(partition) if not wanted or key[0] in wanted)
        places = names["device"] | {gateway for name in names["cause"] if (gateway := gateway_of(name))}
        if places:
            for place in places:
                found.update(table.near(partition, place))
            for gateway in table.gateways(partition):
                if not places.isdisjoint(self._around.gateways("", gateway, now_ms)):
                    found.update(table.near(partition, gateway))
        return found

    def _key(self, alert_id: str) -> Key | None:
        return self._table.key_of(self._partition, alert_id)


def moments_of(standing: Standing, now_ms: int, keep_over_ms: int) -> list[Moment]:
    """Moments after `now_ms` that an alert itself leads to: the end of its snooze, and when it is forgotten."""
    alert = standing.alert
    if alert is None:
        return []
    found = []
    if standing.open and standing.snoozed_until is not None and standing.snoozed_until > now_ms:
        found.append(Moment(standing.snoozed_until, "snooze", alert.alertId))
    if not standing.open and standing.over_at is not None:
        found.append(Moment(max(standing.over_at + keep_over_ms, now_ms + 1), "over", alert.alertId))
    return found


def rules_by_id(rules: RuleSet) -> Mapping[str, AlertRule]:
    """Rules by id."""
    return {rule.rule_id: rule for rule in rules.rules}


_KINDS = ("device", "silence", "cause")
