"""Contacts that nothing reaches: a copy of `notifications.contacts`, and what brings one back."""

from collections.abc import Callable

import structlog
from pydantic import ValidationError

from headrace.engine.log import Changes, Fetched, Log, TopicPartition, Transaction
from headrace.engine.log_range import reading
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.contacts import masked, masked_recipient, masked_text
from headrace.schemas.dead_contact import DeadContact, dead_contact_key

#: Seconds between two looks, where nothing wakes the reader; records of one read.
POLL, MOST_READ = 1.0, 1_000

logger = structlog.get_logger(__name__)


class DeadContacts:
    """Known in every process that delivers, about a second after one of them has found out.

    A contact is alive again when its user's record changes, which may be because of it.

    Args:
        log: with `notifications.contacts` and `registry.users`, one partition each.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._dead: dict[bytes, DeadContact] = {}

    def get(self, channel: str, contact: str) -> DeadContact | None:
        """Why nothing is sent to a contact; None if something is."""
        return self._dead.get(dead_contact_key(channel, contact))

    def add(self, dead: DeadContact) -> None:
        """Know of one at once; to write it is for the caller."""
        self._dead[dead_contact_key(dead.channel, dead.contact)] = dead

    async def run(self, ready: Callable[[], None]) -> None:
        """Follow both topics until cancelled; `ready` is called once what is there is known."""
        contacts, users = (TopicPartition(topic, 0) for topic in (topics.DEAD_CONTACTS, topics.USERS))
        positions = {contacts: 0, users: 0}
        ends = {**await self._log.end_offsets(topics.DEAD_CONTACTS), **await self._log.end_offsets(topics.USERS)}
        told = False
        async with reading(self._log) as reader:
            while True:
                # Contacts come first: whether a user's change is newer than one can only be said of those known.
                target = contacts if positions[contacts] < ends[contacts] else users
                found = await reader.read(target, positions[target], MOST_READ)
                if found is None and target == users:
                    found = await reader.read(contacts, positions[contacts], MOST_READ)
                if found is not None:
                    positions[found.target] = found.next_offset
                    await self._take(found)
                if not told and all(positions[each] >= end for each, end in ends.items()):
                    told = True
                    ready()
                if found is None:
                    await reader.wait(positions, POLL)

    async def _take(self, found: Fetched) -> None:
        if found.target.topic == topics.DEAD_CONTACTS:
            for record in found.records:
                self._learn(record)
            return
        of_users: dict[bytes, list[bytes]] = {}
        for key, dead in self._dead.items():
            of_users.setdefault((dead.userId or "").encode(), []).append(key)
        revived = {
            key
            for record in found.records
            for key in of_users.get(record.key or b"", ())
            if self._dead[key].at < record.timestamp
        }
        if revived:
            for key in revived:
                gone = self._dead.pop(key, None)
                if gone is not None:
                    logger.info("contact_enabled", channel=gone.channel, recipient=masked_recipient(gone.recipient))
            target = TopicPartition(topics.DEAD_CONTACTS, 0)
            await self._log.commit(Transaction(changes=[Changes(target, dict.fromkeys(revived))]))

    def _learn(self, record: Record) -> None:
        key = record.key or b""
        if record.value is None:
            self._dead.pop(key, None)
            return
        try:
            self._dead[key] = DeadContact.model_validate_json(record.value, extra="ignore")
        except ValidationError as error:
            logger.warning(
                "dead_contact_unreadable", key=masked(key.decode(errors="replace")), error=masked_text(str(error))
            )
