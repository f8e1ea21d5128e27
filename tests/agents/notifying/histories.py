"""What happens to alerts, as records of `alerts.v1`, and both agents run over it."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from headrace.agents.notifying.dispatch import Dispatch
from headrace.agents.notifying.integrations import Integration
from headrace.agents.notifying.notify import Notify
from headrace.agents.notifying.settings import NotifySettings
from headrace.engine.batch import Idle
from headrace.engine.operator import Operator
from headrace.engine.records import Record, Records
from headrace.engine.testkit import Changelog, Driven, fetched, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import PREFIX, Alert, Suppression
from headrace.schemas.user import User
from headrace.tables.users import user_table

MINUTE = 60_000


class AlertLog:
    """Writes events of alerts as alerting does.

    Args:
        severities: of rules, by id.
    """

    def __init__(self, severities: Mapping[str, str], **fields: Any) -> None:
        self._severities = severities
        self._fields = fields
        self.newest: dict[tuple[str, str], Alert] = {}
        #: (append time in ms, change, alert after it), in order.
        self.events: list[tuple[int, str, Alert]] = []

    def is_open(self, rule: str, device: str) -> bool:
        alert = self.newest.get((rule, device))
        return alert is not None and alert.status != "resolved"

    def trigger(self, rule: str, device: str, at_ms: int, *, by: str = "", **fields: Any) -> Alert:
        alert = Alert(
            alertId=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{rule} {device} {at_ms}")),
            revision=1,
            ruleId=rule,
            ruleName=rule.title(),
            deviceId=device,
            deviceType="environmental",
            severity=self._severities[rule],
            status="triggered",
            condition="temperature > 40",
            metric="temperature",
            actualValue=45.0,
            threshold=40.0,
            triggeredAt=at_ms,
            groupKey=f"{device} {rule}",
            suppressed=_suppressed(by),
            **{**self._fields, **fields},
        )
        return self._add(at_ms, "triggered", alert)

    def acknowledge(self, rule: str, device: str, at_ms: int) -> Alert:
        return self._change(rule, device, at_ms, "acknowledged", status="acknowledged", acknowledgedAt=at_ms)

    def resolve(self, rule: str, device: str, at_ms: int) -> Alert:
        return self._change(rule, device, at_ms, "resolved", status="resolved", resolvedAt=at_ms)

    def suppress(self, rule: str, device: str, at_ms: int, by: str = "silence") -> Alert:
        return self._change(
            rule, device, at_ms, "snoozed" if by == "snooze" else "suppressed", suppressed=_suppressed(by)
        )

    def unsuppress(self, rule: str, device: str, at_ms: int) -> Alert:
        return self._change(rule, device, at_ms, "unsuppressed", suppressed=None)

    def comment(self, rule: str, device: str, at_ms: int) -> Alert:
        return self._change(rule, device, at_ms, "commented")

    def records(self) -> Records:
        rows = [record(*event) for event in self.events]
        return Records(
            [each.key for each in rows], [each.value for each in rows], [each.timestamp for each in rows],
            {topics.MESSAGE_ID: [each.headers[topics.MESSAGE_ID] for each in rows]},
        )  # fmt: skip

    def _change(self, rule: str, device: str, at_ms: int, change: str, **fields: Any) -> Alert:
        alert = self.newest[rule, device]
        return self._add(at_ms, change, alert.model_copy(update={**fields, "revision": alert.revision + 1}))

    def _add(self, at_ms: int, change: str, alert: Alert) -> Alert:
        self.newest[alert.ruleId, alert.deviceId] = alert
        self.events.append((at_ms, change, alert))
        return alert


def _suppressed(by: str) -> Suppression | None:
    return Suppression(by=by, id="s-1", text=f"{by} s-1 has it") if by else None


def record(at_ms: int, change: str, alert: Alert) -> Record:
    """An event as alerting writes it."""
    event = {
        "specversion": "1.0",
        "id": f"{alert.alertId}/{alert.revision}",
        "source": "/headrace/alert",
        "type": PREFIX + change,
        "subject": alert.deviceId,
        "time": "2025-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": orjson.Fragment(alert.model_dump_json(exclude_none=True)),
    }
    return Record(alert.deviceId.encode(), orjson.dumps(event), at_ms, {topics.MESSAGE_ID: b"m-1"})


class World:
    """Both agents, made anew as often as wanted.

    Args:
        changes: (from when on in ms, user id, the user or None) of the registry.
    """

    def __init__(
        self,
        settings: NotifySettings,
        changes: Iterable[tuple[int, str, User | None]],
        integrations: Sequence[Integration] = (),
    ) -> None:
        self.settings = settings
        self.users = user_table()
        for at_ms, user_id, user in changes:
            self.users.put(user_id, user, at_ms=at_ms)
        self.integrations = integrations

    def notify(self) -> Notify:
        return Notify(self.settings, self.users, {}, self.integrations)

    def dispatch(self) -> Dispatch:
        return Dispatch(self.settings, self.users, self.integrations)

    def run(
        self,
        records: Records,
        end_ms: int,
        cuts: Sequence[int] = (),
        idles: Sequence[int] = (),
        *,
        restart: bool = False,
    ) -> Driven:
        """What both send; see `run_over`."""
        first = run_over(self.notify, records, end_ms, cuts, idles, restart=restart)
        requests = first.sent.get(topics.NOTIFICATION_REQUESTS, [])
        assert [each.timestamp for each in requests] == sorted(each.timestamp for each in requests)
        second = run_over(self.dispatch, to_records(requests), end_ms, cuts, idles, restart=restart)
        return Driven({**first.sent, **second.sent}, [*first.dead_letters, *second.dead_letters])


def to_records(rows: Sequence[Record]) -> Records:
    return Records([each.key for each in rows], [each.value for each in rows], [each.timestamp for each in rows])


def run_over(
    make: Callable[[], Operator],
    records: Records,
    end_ms: int,
    cuts: Sequence[int] = (),
    idles: Sequence[int] = (),
    *,
    restart: bool = False,
) -> Driven:
    """Give an agent records in batches of these sizes, in turn, then let nothing come until the end.

    Args:
        idles: places of batches before which nothing came until the first record's time.
        restart: after every batch a fresh one goes on, from the changelog.
    """
    operator, driven, changelog, start, number = make(), Driven({}, []), Changelog(), 0, 0
    while start < len(records):
        size = cuts[number % len(cuts)] if cuts else len(records)
        part = records.slice(start, start + size)
        if number in idles:
            _pass(operator, driven, part.timestamps[0] - 1)
        run_batch(operator, fetched(part, operator.topic, 0, start), driven)
        start, number = start + len(part), number + 1
        if restart:
            changelog.commit(operator)
            operator = make()
            changelog.restore(operator)
    _pass(operator, driven, end_ms)
    return driven


def _pass(operator: Operator, driven: Driven, now_ms: int) -> None:
    run_batch(operator, fetched(Records([], [], []), operator.topic), driven, Idle(1_000, now_ms))


def outbox(driven: Driven) -> list[dict[str, Any]]:
    """What is to be sent, in order."""
    return [orjson.loads(each.value or b"") for each in driven.sent.get(topics.OUTBOX, ())]


def events(driven: Driven) -> list[dict[str, Any]]:
    """What was decided, in order."""
    return [orjson.loads(each.value or b"") for each in driven.sent.get(topics.NOTIFICATIONS, ())]
