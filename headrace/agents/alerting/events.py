"""What changes of alerts are sent as: CloudEvents, states, and causes for every worker."""

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter

import msgspec
import orjson

from headrace.agents.alerting.standing import alert_json
from headrace.agents.alerting.suppression import Cause
from headrace.agents.alerting.work import Changed, Work
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import EVENT_CONTENT, PREFIX, SOURCE, Alert, Refusal


def send_changes(work: Work, changes: Sequence[Changed], stamps: Sequence[int]) -> None:
    """Stage events and states of changes, and answers to commands that are refused.

    Args:
        work: whose changes they are.
        changes: in the order in which they happened.
        stamps: append time of each record of the batch, ms; of an idle one, now.
    """
    if not (changes or work.refusals or work.forgotten):
        return
    batch = work.batch
    bodies = [alert_json(each.alert) for each in changes]
    rows = [
        (each.row, each.alert.deviceId.encode(), _event(each, body), each.message_id)
        for each, body in zip(changes, bodies, strict=True)
    ]
    rows += [(row, refusal.deviceId.encode(), _refused(refusal, stamps[row]), None) for row, refusal in work.refusals]
    rows.sort(key=itemgetter(0))
    events = Records(
        [key for _, key, _, _ in rows],
        [event for _, _, event, _ in rows],
        [stamps[row] for row, _, _, _ in rows],
        {
            topics.CONTENT_TYPE: EVENT_CONTENT,
            topics.MESSAGE_ID: [None if message is None else message.encode() for _, _, _, message in rows],
        },
    )
    batch.send_records(topics.ALERTS, events, partition=batch.partition)
    states: list[tuple[bytes, bytes | None, int]] = [(each.encode(), None, stamps[0]) for each in work.forgotten]
    for each, body in zip(changes, bodies, strict=True):
        if each.replaced is not None:
            states.append((each.replaced.encode(), None, stamps[each.row]))
        states.append((each.alert.alertId.encode(), body, stamps[each.row]))
    batch.send_records(topics.ALERT_STATES, _records(states), partition=batch.partition)
    causes = [
        (
            cause_key(each.alert.deviceId, each.alert.ruleId),
            _cause(each.alert) if each.cause else None,
            stamps[each.row],
        )
        for each in changes
        if each.cause is not None
    ]
    batch.send_records(topics.ALERT_CAUSES, _records(causes), partition=0)


def cause_key(gateway: str, rule_id: str) -> bytes:
    """Of the topic of causes."""
    return orjson.dumps([gateway, rule_id])


def rfc3339(time_ms: int) -> str:
    """`2025-11-15T10:00:00.000Z`."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(changed: Changed, body: bytes) -> bytes:
    alert = changed.alert
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{alert.alertId}/{alert.revision}",
            "source": SOURCE,
            "type": PREFIX + changed.change,
            "subject": alert.deviceId,
            "time": rfc3339(changed.time_ms),
            "datacontenttype": "application/json",
            **({} if changed.command_id is None else {"commandid": changed.command_id}),
            "data": orjson.Fragment(body),
        }
    )


def _refused(refusal: Refusal, at_ms: int) -> bytes:
    """The answer to a command that is not carried out."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{refusal.commandId}/refused",
            "source": SOURCE,
            "type": f"{PREFIX}refused",
            "subject": refusal.deviceId,
            "time": rfc3339(at_ms),
            "datacontenttype": "application/json",
            "commandid": refusal.commandId,
            "data": refusal.model_dump(exclude_none=True),
        }
    )


def _cause(alert: Alert) -> bytes:
    return msgspec.json.encode(Cause(alert.alertId, alert.ruleName, alert.deviceId, alert.triggeredAt))


def _records(rows: Sequence[tuple[bytes, bytes | None, int]]) -> Records:
    return Records([key for key, _, _ in rows], [value for _, value, _ in rows], [stamp for _, _, stamp in rows])
