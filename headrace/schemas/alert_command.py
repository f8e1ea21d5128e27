"""What `alerts.commands.v1` carries: what a person wants done with an alert. Record key: the device id of the alert.

Commands are keyed like readings, so that the worker that has the alert reads them. A repeat (same `commandId`) does
nothing; one that cannot be carried out is answered with a `refused` event on `alerts.v1`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

#: What no database and no terminal takes is not in texts; one line in ids and names.
_LINE = r"^[^\x00-\x1f\x7f]*$"
_LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=_LINES)]


class _Command(BaseModel):
    """What all have.

    Args:
        commandId: unique, made by who sends it.
        alertId: the alert.
        deviceId: its device; the record key too.
        userId: who wants it.
        userName: how people call them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    commandId: Id
    alertId: Id
    deviceId: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    userId: Id
    userName: Id | None = None


class Acknowledge(_Command):
    """Somebody looks after it.

    Args:
        command: which one this is.
        comment: added to the alert.
    """

    command: Literal["acknowledge"] = "acknowledge"
    comment: Text | None = None


class Resolve(_Command):
    """It is over, says a person; it must have been acknowledged.

    If the condition still holds, the rule does not trigger again on the device before it was clear once.

    Args:
        command: which one this is.
        resolution: how it was resolved.
        preventionNotes: what will keep it from happening again.
    """

    command: Literal["resolve"] = "resolve"
    resolution: Text
    preventionNotes: Text | None = None


class AddComment(_Command):
    """Something to be read with it; of ended alerts too.

    Args:
        command: which one this is.
        comment: the text.
    """

    command: Literal["comment"] = "comment"
    comment: Text


class Snooze(_Command):
    """Tell nobody of it for a while.

    Args:
        command: which one this is.
        until: when that ends, ms since 1970 UTC; at most a week from now.
    """

    command: Literal["snooze"] = "snooze"
    until: int


class Notified(_Command):
    """Somebody was told of it: delivery says so itself, in the transaction that finishes the notifications.

    An alert that is not there any more is told nothing; nobody is answered.

    Args:
        command: which one this is.
        channels: by which they were told.
        at: when the last of them was sent, ms since 1970 UTC.
    """

    command: Literal["notified"] = "notified"
    channels: Annotated[tuple[Id, ...], Field(min_length=1, max_length=20)]
    at: int


AlertCommand = Annotated[Acknowledge | Resolve | AddComment | Snooze | Notified, Field(discriminator="command")]
ALERT_COMMAND: TypeAdapter[Acknowledge | Resolve | AddComment | Snooze | Notified] = TypeAdapter(AlertCommand)
