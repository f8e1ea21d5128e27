"""Carries out what people want done with alerts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.events import refused
from headrace.agents.alerting.standing import MOST_COMMANDS, Standing, resolved
from headrace.agents.alerting.work import Work
from headrace.schemas.alert import MOST_COMMENTS, Alert, Change, Comment, Person, Refusal, Resolution
from headrace.schemas.alert_command import ALERT_COMMAND, Acknowledge, AddComment, AlertCommand, Resolve, Snooze

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
            found = error.errors(include_url=False)[0]
            work.batch.dead_letter(row, f"no command: {'.'.join(map(str, found['loc']))}: {found['msg']}")
            continue
        _carry_out(work, row, command, work.key_of(command.alertId))


def _carry_out(work: Work, row: int, command: AlertCommand, key: Key | None) -> None:
    at_ms = work.batch.records.timestamps[row]
    standing = None if key is None else work.standing(key)
    if standing is None or standing.alert is None or standing.alert.alertId != command.alertId:
        outcome: Outcome = "there is no such alert, or a newer one of the same rule and device has taken its place"
    elif command.commandId in standing.commands:
        return
    else:
        outcome = _HANDLERS[type(command)](standing, standing.alert, command, at_ms)
    if isinstance(outcome, str):
        refusal = Refusal(
            commandId=command.commandId,
            command=command.command,
            alertId=command.alertId,
            deviceId=command.deviceId,
            reason=outcome,
        )
        refused(work.batch, row, command.commandId, refusal, at_ms)
        return
    assert key is not None
    after, change = outcome
    after = replace(after, commands=(*after.commands, command.commandId)[-MOST_COMMANDS:])
    work.set(key, after)
    alert = after.alert
    assert alert is not None
    rule = next((each for each in work.rules.rules if each.rule_id == key[0]), None)
    work.add(row, 0, change, alert, at_ms, rule, command_id=command.commandId)


def acknowledge(standing: Standing, alert: Alert, command: Acknowledge, at_ms: int) -> Outcome:
    """A triggered alert is acknowledged, once."""
    if alert.status == "resolved":
        return "it is over: only comments can be added"
    if alert.status == "acknowledged":
        who = alert.acknowledgedBy.name or alert.acknowledgedBy.userId if alert.acknowledgedBy else "somebody"
        return f"{who} has acknowledged it already"
    comments = _commented(alert, command, command.comment, at_ms)
    return _changed(
        standing, alert, status="acknowledged", acknowledgedAt=at_ms, acknowledgedBy=_person(command), comments=comments
    ), "acknowledged"  # fmt: skip


def resolve(standing: Standing, alert: Alert, command: Resolve, at_ms: int) -> Outcome:
    """An acknowledged alert is resolved by a person."""
    if alert.status == "resolved":
        return "it is over already"
    if alert.status == "triggered":
        return "acknowledge it first"
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
