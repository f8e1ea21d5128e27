"""What changes of alerts are sent as: CloudEvents, states, and causes for every worker."""

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from headrace.agents.alerting.standing import alert_json
from headrace.agents.alerting.work import Changed
from headrace.engine.batch import Batch
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import EVENT_CONTENT, PREFIX, SOURCE, Refusal


def send_changes(batch: Batch, changes: Sequence[Changed], stamps: Sequence[int]) -> None:
    """Stage events and states of changes.

    Args:
        changes: in the order in which they happened.
        stamps: append time of each record of the batch, ms; of an idle one, now.
    """
    if not changes:
        return
    bodies = [alert_json(each.alert) for each in changes]
    events = Records(
        [each.alert.deviceId.encode() for each in changes],
        [_event(each, body) for each, body in zip(changes, bodies, strict=True)],
        [stamps[each.row] for each in changes],
        {
            topics.CONTENT_TYPE: EVENT_CONTENT,
            topics.MESSAGE_ID: [None if each.message_id is None else each.message_id.encode() for each in changes],
        },
    )
    batch.send_records(topics.ALERTS, events, partition=batch.partition)
    states: list[tuple[bytes, bytes | None, int]] = []
    for each, body in zip(changes, bodies, strict=True):
        if each.replaced is not None:
            states.append((each.replaced.encode(), None, stamps[each.row]))
        states.append((each.alert.alertId.encode(), body, stamps[each.row]))
    batch.send_records(topics.ALERT_STATES, _records(states), partition=batch.partition)
    causes = [
        (cause_key(each.alert.deviceId, each.alert.ruleId), cause, stamps[each.row])
        for each in changes
        if each.rule is not None and each.rule.explains and each.change in ("triggered", "resolved")
        for cause in [_cause(each)]
    ]
    batch.send_records(topics.ALERT_CAUSES, _records(causes), partition=0)


def refused(batch: Batch, row: int, command_id: str, refusal: Refusal, at_ms: int) -> None:
    """Stage the answer to a command that is not carried out."""
    document = {
        "specversion": "1.0",
        "id": f"{command_id}/refused",
        "source": SOURCE,
        "type": f"{PREFIX}refused",
        "subject": refusal.deviceId,
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        "commandid": command_id,
        "data": refusal.model_dump(exclude_none=True),
    }
    headers = {topics.CONTENT_TYPE: EVENT_CONTENT}
    batch.send(topics.ALERTS, refusal.deviceId.encode(), orjson.dumps(document), row=row, headers=headers)


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


def _cause(changed: Changed) -> bytes | None:
    if changed.change == "resolved":
        return None
    alert = changed.alert
    return orjson.dumps({"alertId": alert.alertId, "ruleName": alert.ruleName, "triggeredAt": alert.triggeredAt})


def _records(rows: Sequence[tuple[bytes, bytes | None, int]]) -> Records:
    return Records([key for key, _, _ in rows], [value for _, value, _ in rows], [stamp for _, _, stamp in rows])
