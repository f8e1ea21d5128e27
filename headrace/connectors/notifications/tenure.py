"""The time for which a process has some partitions of the outbox, and what it does with them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import structlog

from headrace.connectors.notifications.channel import Channel, ContactGone, Content, Findable, Message, Refused, Sent
from headrace.connectors.notifications.channel_queue import ChannelQueue
from headrace.connectors.notifications.dead_contacts import DeadContacts
from headrace.connectors.notifications.dead_letters import ATTEMPTS, MOST_ERROR, NUMBER, unreadable
from headrace.connectors.notifications.delivery_counts import DeliveryCounts
from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.connectors.notifications.journal import Entry, Journal
from headrace.connectors.notifications.late import LATE_AFTER, marked_late
from headrace.connectors.notifications.open_rows import OpenRows, log_fields
from headrace.connectors.notifications.row import Row, rows_of
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import RetryLater
from headrace.engine.log import Fetched, Log, Member, Reader, TopicPartition
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.contacts import masked, masked_text
from headrace.schemas.dead_contact import DeadContact
from headrace.schemas.notification import Notification, Reason
from headrace.schemas.text import shortened

#: Records of one read, and seconds between two looks.
MOST_READ, POLL = 500, 1.0
#: Between two looks for rows whose server is down and that are too old by now, ms.
SWEEP_MS = 10_000

Render = Callable[[Notification], Content]
logger = structlog.get_logger(__name__)


class _NoWords(Refused):
    """Its text cannot be made: its channel has not been asked."""


class Tools(NamedTuple):
    """What delivery works with; see `headrace.connectors.notifications.delivery.Delivery`."""

    log: Log
    channels: Mapping[str, Channel]
    render: Render
    clock: Clock
    settings: DeliverySettings
    random: Random
    dead: DeadContacts
    counts: DeliveryCounts


class Tenure:
    """Takes rows from the outbox, sends them, and writes what came of each.

    A row is in `notifications.pending` in the transaction that moves the position behind it, and until what came of it
    is in the delivery log; `sending` is there before an attempt begins. So a row is never lost, and an attempt whose
    end nobody wrote is known. Memory: the rows that wait, at most `settings.most_waiting`, and a few hundred more.

    Args:
        tools: see there.
        targets: partitions of the outbox.
        member: who has them.
        positions: where to go on, by partition.
    """

    def __init__(
        self, tools: Tools, targets: Sequence[TopicPartition], member: Member, positions: Mapping[TopicPartition, int]
    ) -> None:
        self._tools = tools
        self._targets = list(targets)
        self._clock, self._counts, self._settings = tools.clock, tools.counts, tools.settings
        self._journal = Journal(
            tools.log, tools.clock, member, {each.partition: positions.get(each, 0) for each in targets}
        )
        self._queues = {
            name: ChannelQueue(channel.at_once, tools.settings, tools.random)
            for name, channel in tools.channels.items()
        }
        self._rows = OpenRows(self._journal, tools.clock, tools.counts)
        self._attempts: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._ending = False
        self._swept_ms = 0

    @property
    def waiting(self) -> int:
        """Rows that are not finished, count."""
        return len(self._rows)

    def down(self) -> dict[str, str]:
        """Servers that are down, as `channel` or `channel server`, with their last errors."""
        return {
            f"{name} {_shown(server)}".strip(): error
            for name, queue in self._queues.items()
            for server, error in queue.down().items()
        }

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            CommitRefused: the partitions are somebody else's.
            LogError: the log failed.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._journal.run())
            await self._restore()
            group.create_task(self._dispatch())
            group.create_task(self._rows.tell_alerts())
            reader = self._tools.log.reader()
            try:
                await self._read(reader)
            finally:
                await reader.close()

    async def finish(self, patience: float) -> None:
        """Begin nothing more, and give what is under way `patience` seconds; what has not ended then is `unknown`."""
        self._ending = True
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=patience)
        # What is left in the air has its row: whoever has the partition next finds out.
        await cancel_and_wait(*self._attempts)
        await self._rows.flush_notes()

    # -- rows come

    async def _restore(self) -> None:
        """Take up what an earlier tenure has left."""
        found: list[Row] = []
        for target in self._targets:
            async for chunk in self._tools.log.restore(TopicPartition(topics.NOTIFICATIONS_PENDING, target.partition)):
                for key, value in chunk:
                    try:
                        found.append(Row.decode(target.partition, value))
                    except (ValueError, TypeError) as error:  # of a newer version: it stays
                        logger.error(
                            "pending_row_unreadable", key=key.decode(errors="replace"), error=masked_text(str(error))
                        )
        found.sort(key=lambda row: (row.partition, row.offset, row.number))
        unknown: list[Entry] = []
        for row in found:
            self._rows.add(row)
            if row.status in ("sent", "delivered"):
                self._rows.note_sent(row)
            if row.status == "sending":
                row.status, row.error = "unknown", "the sender was ended during the attempt"
                logger.warning("notification_unknown", **log_fields(row))
                unknown.append(self._rows.now(row))
            if row.status not in ("sent", "delivered"):
                row.rest()
        if unknown:
            await self._journal.write(*unknown)
        for row in found:
            if row.status not in ("sent", "delivered"):
                self._enqueue(row)
        self._wake.set()

    async def _read(self, reader: Reader) -> None:
        positions = {target: self._journal.positions[target.partition] for target in self._targets}
        while True:
            if not positions:
                await asyncio.Event().wait()
            some = False
            for target in self._targets:
                await self._rows.wait_for_room(self._settings.most_waiting)
                fetched = await reader.read(target, positions[target], MOST_READ)
                if fetched is not None:
                    some = True
                    positions[target] = fetched.next_offset
                    await self._take(fetched)
            if not some:
                await reader.wait(positions, POLL)

    async def _take(self, fetched: Fetched) -> None:
        entry = Entry(fetched.target.partition, position=fetched.next_offset)
        taken: list[Row] = []
        for place, record in enumerate(fetched.records):
            offset = fetched.offset(place)
            try:
                attempts = int(record.headers.get(ATTEMPTS, b"0"))
                number = int(record.headers[NUMBER]) if NUMBER in record.headers else None
                rows = rows_of(fetched.target.partition, offset, record.value or b"", attempts, number)
            except ValueError as error:
                self._refuse(entry, fetched.target, offset, record, error)
                continue
            for row in rows:
                if row not in self._rows:  # else a dead letter was sent back twice
                    self._rows.add(row)
                    entry.pending[row.key] = row.encode()
                    taken.append(row)
        await self._journal.write(entry)
        self._counts.statistics.taken += len(taken)
        for row in taken:
            self._enqueue(row)
        self._wake.set()

    def _refuse(self, entry: Entry, target: TopicPartition, offset: int, record: Record, error: ValueError) -> None:
        logger.error(
            "notification_unreadable", partition=target.partition, offset=offset, error=masked_text(str(error))
        )
        self._counts.statistics.refused += 1
        entry.records.append(unreadable(target, offset, record, error))

    def _enqueue(self, row: Row) -> None:
        queue = self._queues.get(row.channel)
        if queue is not None:
            queue.add(row)
            return
        row.error = f"there is no channel {row.channel}: configure it in [channels.{row.channel}], then retry"
        self._begin(self._rows.end(row, "dead"))

    # -- rows go

    async def _dispatch(self) -> None:
        """Begin every attempt whose turn it is; wait for the next."""
        sleeping: asyncio.Task[None] | None = None
        try:
            while True:
                self._wake.clear()
                now_ms = self._clock.now_ms()
                for name, queue in self._queues.items():
                    if not self._ending and now_ms - self._swept_ms >= SWEEP_MS:
                        for old in queue.take_hopeless(now_ms):
                            self._begin(self._give_up(queue, old))
                    while not self._ending and (row := queue.next(now_ms)) is not None:
                        self._begin(self._try(name, row))
                    self._counts.shown(name, queue.waiting, queue.down())
                if now_ms - self._swept_ms >= SWEEP_MS:
                    self._swept_ms = now_ms
                dues = [due for queue in self._queues.values() if (due := queue.due_ms()) is not None]
                waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._wake.wait())]
                if dues and not self._ending:
                    delay = self._clock.real_seconds(max(1, min(dues) - now_ms))
                    sleeping = asyncio.create_task(self._clock.sleep(delay))
                    waits.append(sleeping)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await cancel_and_wait(*waits)
        finally:
            await cancel_and_wait(sleeping)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def _give_up(self, queue: ChannelQueue, row: Row) -> None:
        """It is too old, and its server is down."""
        try:
            if not await self._is_void(row):
                await self._end_too_old(row)
            queue.ended(row)
        finally:
            self._wake.set()

    async def _try(self, name: str, row: Row) -> None:
        queue, channel = self._queues[name], self._tools.channels[name]
        try:
            if await self._is_void(row):
                queue.ended(row)
                return
            try:
                sent = await self._attempt(channel, row, self._content(queue, row))
            except RetryLater as error:
                await self._failed(queue, row, error)
            except Refused as error:
                if not isinstance(error, _NoWords):
                    self._answered(name, queue, row)
                await self._refused(row, error)
                queue.ended(row)
            else:
                self._answered(name, queue, row)
                # The note goes with that of the next one's beginning, in one commit.
                queue.free(row)
                self._wake.set()
                row.status, row.error, row.provider_id = "sent", None, sent.provider_id
                row.sent_at = self._clock.now_ms()
                if sent.delivered:
                    row.status, row.delivered_at = "delivered", row.sent_at
                await self._journal.write(self._rows.now(row))
                self._counts.sent(name, row.notification.decidedAt)
                logger.debug("notification_sent", **log_fields(row))
                queue.ended(row)
                self._rows.note_sent(row)
        finally:
            self._wake.set()

    async def _attempt(self, channel: Channel, row: Row, content: Content) -> Sent:
        """Find out about the last attempt, or make another one.

        Raises:
            RetryLater, Refused: see `Channel.send`.
        """
        unknown = row.status == "unknown"
        if unknown and isinstance(channel, Findable):
            try:
                async with asyncio.timeout(self._settings.attempt_timeout):
                    found = await channel.find(Message(row.notification, row.contact, content, max(row.attempts, 1)))
            except TimeoutError:
                raise RetryLater("the provider did not say in time whether it has it") from None
            if found is not None:
                self._counts.statistics.found += 1
                logger.info("notification_found", **log_fields(row))
                return found
        row.attempts += 1
        if unknown:
            self._counts.statistics.repeated += 1
            logger.warning("notification_repeated", known_by_key=channel.idempotent, **log_fields(row))
        row.status = "sending"
        await self._journal.write(self._rows.now(row))
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.attempt_timeout):
                return await channel.send(Message(row.notification, row.contact, content, row.attempts))
        except TimeoutError:
            seconds = self._settings.attempt_timeout
            raise RetryLater(f"no end within {seconds:g} s; it may have arrived all the same") from None
        except (RetryLater, Refused):
            raise
        except Exception as error:  # a channel's mistake must not end the others
            logger.exception("channel_error", **log_fields(row))
            raise RetryLater(f"{type(error).__name__}: {error}") from error
        finally:
            self._counts.attempted(row.channel, began)

    def _content(self, queue: ChannelQueue, row: Row) -> Content:
        try:
            content = self._tools.render(row.notification)
        except Exception as error:
            raise _NoWords(f"it cannot be put into words: {type(error).__name__}: {error}") from error
        # Of those who read it: a demo's time runs faster than theirs.
        seconds = self._clock.real_seconds(self._clock.now_ms() - row.notification.decidedAt)
        if seconds < LATE_AFTER:
            return content
        over = row.kind != "resolved" and any(each.kind == "resolved" for each in queue.behind(row))
        return marked_late(content, seconds, over=over)

    async def _is_void(self, row: Row) -> bool:
        """Whether it is not to be sent any more, which is written then."""
        told = row.notification
        seconds = (self._clock.now_ms() - told.decidedAt) / 1000
        dead = self._tools.dead.get(row.channel, row.contact)
        if dead is not None:
            row.error = f"nothing reaches this contact: {dead.reason}"
            await self._rows.end(row, "dropped", Reason(code="no-contact", text=row.error))
        elif row.status == "unknown":
            return False  # it may have been sent: what came of it is found out however late it is
        elif row.stales and seconds > self._settings.stale_after:
            why = row.error or "its server was down"
            text = f"it could not be sent for {seconds / 60:.0f} minutes, and is not critical: {why}"
            await self._rows.end(row, "dropped", Reason(code="expired", text=text))
        elif seconds > self._settings.give_up_after and row.attempts:
            await self._end_too_old(row)
        else:
            return False
        return True

    async def _end_too_old(self, row: Row) -> None:
        hours = (self._clock.now_ms() - row.decided_at) / 3_600_000
        row.error = f"given up after {hours:.1f} hours: {row.error or 'its server was down'}"
        await self._rows.end(row, "dead")

    # -- what came of them

    def _answered(self, name: str, queue: ChannelQueue, row: Row) -> None:
        if queue.answered(row):
            logger.info("channel_resumed", channel=name, server=_shown(row.server))

    async def _failed(self, queue: ChannelQueue, row: Row, error: RetryLater) -> None:
        row.error = shortened(str(error), MOST_ERROR)
        if row.status == "sending":
            row.status = "failed"
        self._counts.statistics.failed += 1
        logger.info("notification_failed", error=masked_text(row.error), **log_fields(row))
        entry = self._rows.entry(row)
        said = masked_text(row.error)
        if queue.failed(row, self._clock.now_ms(), said, error.after):
            logger.warning("channel_down", channel=row.channel, server=_shown(row.server), error=said)
        if self._rows.is_open(row):
            entry.pending[row.key] = row.encode()  # with the time at which it is due
        await self._journal.write(entry)

    async def _refused(self, row: Row, error: Refused) -> None:
        row.error = shortened(str(error), MOST_ERROR)
        if not isinstance(error, ContactGone):
            await self._rows.end(row, "dead")
            return
        told = row.notification
        dead = DeadContact(
            channel=told.channel, contact=row.contact, recipient=told.recipient, userId=told.userId, by="provider",
            reason=row.error, at=self._clock.now_ms(),
        )  # fmt: skip
        self._tools.dead.add(dead)
        logger.warning("contact_disabled", error=masked_text(row.error), **log_fields(row))
        await self._rows.end(row, "dead", dead=dead)


def _shown(server: str) -> str:
    """Of a server what may be in logs: webhooks have an address, integrations a name."""
    return masked(server) if "://" in server else server
