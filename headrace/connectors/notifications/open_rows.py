"""The rows of the outbox that are not finished, and what is written of them."""

import asyncio

import structlog

from headrace.connectors.notifications.alert_notes import GATHER, AlertNotes
from headrace.connectors.notifications.dead_letters import given_up
from headrace.connectors.notifications.delivery_counts import DeliveryCounts
from headrace.connectors.notifications.events import event_headers, event_json, state_json
from headrace.connectors.notifications.journal import Entry, Journal
from headrace.connectors.notifications.row import Row
from headrace.engine.clock import Clock
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.contacts import masked_recipient, masked_text
from headrace.schemas.dead_contact import DeadContact, dead_contact_key
from headrace.schemas.notification import Reason, Status

logger = structlog.get_logger(__name__)


class OpenRows:
    """Rows from when they are taken until what came of them is in the delivery log, and their alerts know.

    Args:
        journal: where everything is written.
        clock: dates events, and waits for notes to alerts.
        counts: told what rows come to.
    """

    def __init__(self, journal: Journal, clock: Clock, counts: DeliveryCounts) -> None:
        self._journal = journal
        self._clock = clock
        self._counts = counts
        self._rows: dict[bytes, Row] = {}
        self._notes = AlertNotes()
        self._room = asyncio.Event()
        self._noted = asyncio.Event()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: Row) -> bool:
        """Whether a row of the same notification and contact is open."""
        return row.key in self._rows

    def add(self, row: Row) -> None:
        """A row that is pending."""
        self._rows[row.key] = row

    def is_open(self, row: Row) -> bool:
        """Whether it is not finished."""
        return self._rows.get(row.key) is row

    async def wait_for_room(self, most: int) -> None:
        """Wait until there are fewer than `most`."""
        while len(self._rows) >= most:
            self._room.clear()
            await self._room.wait()

    def note_sent(self, row: Row) -> None:
        """Its alert is to know that it was sent; then it is finished."""
        self._notes.add(row)
        self._noted.set()

    def now(self, row: Row) -> Entry:
        """A row as it is now: pending, in the delivery log, and as an event."""
        entry = self.entry(row)
        entry.pending[row.key] = row.encode()
        return entry

    def entry(self, row: Row, *reasons: Reason) -> Entry:
        """The same without the row itself."""
        state = row.state(reasons=reasons)
        told = row.notification
        self._counts.came_to(row.channel, row.status)
        event = Record(
            told.recipient.encode(),
            event_json(state, row.key, self._clock.now_ms()),
            0,
            event_headers(told.messageId),
        )
        return Entry(row.partition, states={row.key: state_json(state)}, records=[(topics.NOTIFICATIONS, event)])

    async def end(self, row: Row, status: Status, *reasons: Reason, dead: DeadContact | None = None) -> None:
        """The row is finished without having been sent."""
        row.status = status
        entry = self.entry(row, *reasons)
        entry.pending[row.key] = None
        if status == "dead":
            self._counts.statistics.dead += 1
            logger.error("notification_dead", error=masked_text(row.error or ""), **log_fields(row))
            entry.records.append(given_up(row))
        else:
            self._counts.statistics.dropped += 1
            why = reasons[-1].text if reasons else row.error
            logger.info("notification_dropped", why=masked_text(why or ""), **log_fields(row))
        if dead is not None:
            entry.dead[dead_contact_key(dead.channel, dead.contact)] = dead.model_dump_json(exclude_none=True).encode()
        await self._journal.write(entry)
        self._forget(row)

    async def tell_alerts(self) -> None:
        """Tell alerts what was sent of them, some time after it was. Until cancelled."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            await self._clock.sleep(self._clock.real_seconds(GATHER * 1000))
            await self.flush_notes()

    async def flush_notes(self) -> None:
        """Tell alerts at once; with that the rows are finished."""
        if not self._notes:
            return
        rows, commands = self._notes.take()
        entries = {row.partition: Entry(row.partition) for row in rows}
        for row in rows:
            entries[row.partition].pending[row.key] = None
        entries[rows[0].partition].records += commands
        await self._journal.write(*entries.values())
        for row in rows:
            self._forget(row)

    def _forget(self, row: Row) -> None:
        self._rows.pop(row.key, None)
        self._room.set()


def log_fields(row: Row) -> dict[str, object]:
    """What log lines about a row have."""
    told = row.notification
    return {
        "notification_id": told.notificationId,
        "alert_id": told.subjects[0].alert.alertId,
        "channel": row.channel,
        "recipient": masked_recipient(told.recipient),
        "attempt": row.attempts,
        "message_id": told.messageId,
    }
