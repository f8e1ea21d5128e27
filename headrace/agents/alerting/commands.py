"""Carries out what people want done with alerts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.standing import MOST_COMMANDS, NOTHING, Standing, resolved, rested
from headrace.agents.alerting.work import Work
from headrace.schemas.alert import MOST_COMMENTS, Alert, Change, Comment, Person, Refusal, Resolution
from headrace.schemas.alert_command import (
    ALERT_COMMAND,
    Acknowledge,
    AddComment,
    AlertCommand,
    Notified,
    Resolve,
    Snooze,
)
from headrace.schemas.alert_decisions import why_not_acknowledge, why_not_resolve
from headrace.schemas.text import why_invalid

#: Longest snooze, ms.
MOST_SNOOZE_MS = 7 * 86_400_000
#: What becomes of a standing, and what that is called; a text is why it cannot be.
Outcome = tuple[Standing, Change] | str


def carry_out(work: Work) -> None:
    """Carry out the commands of a batch, in order. What is no command is dead-lettered; what cannot be is refused."""
    for row, record in enumerate(work.batch):
        try:
            command = ALERT_COMMAND.validate_json(record.value or b"")
        except ValidationError as error:
            work.batch.dead_letter(row, f"no command: {why_invalid(error)}")
            continue
        if record.key != command.deviceId.encode():
            work.batch.dead_letter(row, "no command: the record's key must be its deviceId")
            continue
        _carry_out(work, row, command, work.key_of(command.alertId))


def _carry_out(work: Work, row: int, command: AlertCommand, key: Key | None) -> None:
    at_ms = work.batch.records.timestamps[row]
    standing = NOTHING if key is None else work.standing(key)
    alert = standing.alert
    if isinstance(command, Notified):
        if key is not None and alert is not None and alert.alertId == command.alertId:
            _note(work, row, command, key, standing, alert)
        return
    if key is None or alert is None or alert.alertId != command.alertId:
        _refuse(work, row, command, "there is no such alert, or a newer one of the same rule and device has its place")
        return
    if command.commandId in standing.commands:
        return
    standing = replace(standing, commands=(*standing.commands, command.commandId)[-MOST_COMMANDS:])
    if alert.deviceId != command.deviceId:
        outcome: Outcome = f"that is an alert of {alert.deviceId}"
    else:
        at_ms = max(at_ms, work.now_ms[row]) if isinstance(command, Snooze) else at_ms
        outcome = _HANDLERS[type(command)](standing, alert, command, at_ms)
    if isinstance(outcome, str):
        # Kept too: the same command must not be carried out later, when it could be.
        work.set(key, standing)
        _refuse(work, row, command, outcome)
        return
    after, change = outcome
    assert after.alert is not None
    alert = after.alert
    if change == "snoozed":
        alert = work.suppressed(alert, after.snoozed_until, row)
    work.set(key, rested(replace(after, alert=alert), work.now_ms[row]))
    work.add(row, 0, change, alert, at_ms, None, command_id=command.commandId)


def _note(work: Work, row: int, command: Notified, key: Key, standing: Standing, alert: Alert) -> None:
    """Delivery writes each once, so its ids are not kept: they would push out those of people's commands."""
    if alert.deviceId != command.deviceId:
        return
    channels = tuple(sorted({*alert.notificationsSent, *command.channels}))
    at_ms = max(command.at, alert.lastNotifiedAt or 0)
    if (channels, at_ms) == (alert.notificationsSent, alert.lastNotifiedAt):
        return
    after = _changed(
        standing, alert, notificationsSent=channels, notificationChannels=channels, lastNotifiedAt=at_ms
    )  # fmt: skip
    assert after.alert is not None
    work.set(key, after)
    work.add(row, 0, "updated", after.alert, at_ms, None, command_id=command.commandId)


def _refuse(work: Work, row: int, command: AlertCommand, reason: str) -> None:
    refusal = Refusal(
        commandId=command.commandId,
        command=command.command,
        alertId=command.alertId,
        deviceId=command.deviceId,
        reason=reason,
    )
    work.refuse(row, refusal)


def acknowledge(standing: Standing, alert: Alert, command: Acknowledge, at_ms: int) -> Outcome:
    """A triggered alert is acknowledged, once."""
    if reason := why_not_acknowledge(alert):
        return reason
    comments = _commented(alert, command, command.comment, at_ms)
    return _changed(
        standing, alert, status="acknowledged", acknowledgedAt=at_ms, acknowledgedBy=_person(command), comments=comments
    ), "acknowledged"  # fmt: skip


def resolve(standing: Standing, alert: Alert, command: Resolve, at_ms: int) -> Outcome:
    """An acknowledged alert is resolved by a person."""
    if reason := why_not_resolve(alert):
        return reason
    resolution = Resolution(
        by="person",
        person=_person(command),
        resolution=command.resolution,
        preventionNotes=command.preventionNotes,
    )
    return replace(resolved(standing, at_ms, resolution), blocked=standing.met), "resolved"


def comment(standing: Standing, alert: Alert, command: AddComment, at_ms: int) -> Outcome:
    """Anything may be commented on."""
    return _changed(standing, alert, comments=_commented(alert, command, command.comment, at_ms)), "commented"


def snooze(standing: Standing, alert: Alert, command: Snooze, at_ms: int) -> Outcome:
    """Nobody is told of an open alert for a while."""
    if alert.status == "resolved":
        return "it is over: there is nothing to be told of"
    if not at_ms < command.until <= at_ms + MOST_SNOOZE_MS:
        return "until must be later than now, by a week at the most"
    return replace(_changed(standing, alert), snoozed_until=command.until), "snoozed"


_HANDLERS: dict[type, Callable[[Standing, Alert, Any, int], Outcome]] = {
    Acknowledge: acknowledge,
    Resolve: resolve,
    AddComment: comment,
    Snooze: snooze,
}


def _changed(standing: Standing, alert: Alert, **changes: Any) -> Standing:
    return replace(standing, alert=alert.model_copy(update={**changes, "revision": alert.revision + 1}))


def _person(command: AlertCommand) -> Person:
    return Person(userId=command.userId, name=command.userName)


def _commented(alert: Alert, command: AlertCommand, text: str | None, at_ms: int) -> tuple[Comment, ...]:
    if text is None:
        return alert.comments
    said = Comment(userId=command.userId, name=command.userName, comment=text, timestamp=at_ms)
    return (*alert.comments, said)[-MOST_COMMENTS:]
