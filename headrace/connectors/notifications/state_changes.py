"""Changes of the delivery log from outside: bounces, and dead letters that are sent again."""

from typing import NamedTuple

from headrace.connectors.notifications.bounces import Bounce
from headrace.connectors.notifications.events import event_headers, event_json, state_json
from headrace.connectors.notifications.journal import columns
from headrace.connectors.notifications.row import row_key
from headrace.engine.log import Append, Changes, Log, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.dead_contact import DeadContact, dead_contact_key
from headrace.schemas.notification import NotificationState


class StoredState(NamedTuple):
    """A row of the delivery log, and where it is."""

    partition: int
    key: bytes
    state: NotificationState


async def apply_bounce(log: Log, bounce: Bounce, known: dict[bytes, StoredState], at_ms: int) -> str | None:
    """Note what a report says, and disable a contact that is gone; what was done, for a person, None for nothing.

    A report about a mail that is not in the log says nothing of whose address it is, and changes nothing: anybody can
    send one. The same report again changes nothing either.

    Args:
        known: the delivery log by key; kept up to date.
    """
    stored = known.get(row_key(bounce.notification_id or "", bounce.place))
    if stored is None or stored.state.channel != "email" or bounce.became == "delayed":
        return None
    state = stored.state
    after = "delivered" if bounce.became == "delivered" else "dead"
    if state.status not in ("sent", "delivered") or state.status == after:
        return None
    reason = f"the mail came back: {bounce.status} {bounce.text}".strip()
    more = {"deliveredAt": at_ms} if after == "delivered" else {"error": reason}
    changed = state.model_copy(update={"status": after, **more})
    contact = state.contact or bounce.contact
    changes = [Changes(TopicPartition(topics.NOTIFICATION_STATES, stored.partition), {stored.key: state_json(changed)})]
    if bounce.gone and contact is not None:
        dead = DeadContact(
            channel="email", contact=contact, recipient=state.recipient, userId=state.userId, by="bounce",
            reason=reason, at=at_ms,
        )  # fmt: skip
        entries = {dead_contact_key("email", contact): dead.model_dump_json(exclude_none=True).encode()}
        changes.append(Changes(TopicPartition(topics.DEAD_CONTACTS, 0), entries))
    event = Record(state.recipient.encode(), event_json(changed, stored.key, at_ms), at_ms, event_headers(None))
    await log.commit(Transaction([_append(log, topics.NOTIFICATIONS, event, at_ms)], changes))
    known[stored.key] = stored._replace(state=changed)
    if after == "delivered":
        return f"{contact} has it"
    return f"{contact} is disabled: {reason}" if bounce.gone else f"{contact} did not get it: {reason}"


async def send_again(log: Log, letter: Record, at_ms: int) -> None:
    """Put a dead letter back into the outbox; attempts are counted on, and its key is the same."""
    kept = {name: value for name, value in letter.headers.items() if not name.startswith("dlq-")}
    await log.commit(Transaction([_append(log, topics.OUTBOX, letter._replace(headers=kept), at_ms)]))


def _append(log: Log, topic: str, record: Record, at_ms: int) -> Append:
    number = Partitioner(log.partitions(topic)).partition(record.key or b"")
    return Append(TopicPartition(topic, number), columns([record], at_ms))
