"""Tells alerts that people were told of them: one command per alert and second, however many messages that were."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.connectors.notifications.row import Row
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.alert_command import Notified

#: Seconds for which messages about one alert are gathered.
GATHER = 1.0
#: Who says so, in commands.
WHO = "headrace"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.notified")


@dataclass(slots=True)
class _Note:
    device_id: str
    channels: set[str] = field(default_factory=set)
    at_ms: int = 0
    rows: list[str] = field(default_factory=list)


class AlertNotes:
    """What has been sent and alerts have not been told of. Its rows stay pending until they have."""

    def __init__(self) -> None:
        self._notes: dict[str, _Note] = {}
        self._rows: list[Row] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: Row) -> None:
        """A row that was sent."""
        told = row.notification
        for subject in told.subjects:
            note = self._notes.setdefault(subject.alert.alertId, _Note(subject.alert.deviceId))
            note.channels.add(told.channel)
            note.at_ms = max(note.at_ms, row.sent_at or 0)
            note.rows.append(f"{row.key.decode()}/{row.attempts}")
        row.rest()
        self._rows.append(row)

    def take(self) -> tuple[list[Row], list[tuple[str, Record]]]:
        """All rows, which are finished with the commands for their alerts; nothing is left."""
        rows, notes = self._rows, self._notes
        self._rows, self._notes = [], {}
        return rows, list(_commands(notes.items()))


def _commands(notes: Iterable[tuple[str, _Note]]) -> Iterable[tuple[str, Record]]:
    for alert_id, note in notes:
        command = Notified(
            # Of the same rows the same, in whatever order they were sent.
            commandId=str(uuid.uuid5(_NAMESPACE, "\0".join((alert_id, *sorted(note.rows))))),
            alertId=alert_id,
            deviceId=note.device_id,
            userId=WHO,
            channels=tuple(sorted(note.channels)),
            at=note.at_ms,
        )
        body = command.model_dump_json(exclude_none=True).encode()
        yield topics.ALERT_COMMANDS, Record(note.device_id.encode(), body, 0, {})
