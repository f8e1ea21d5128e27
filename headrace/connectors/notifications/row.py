"""A row of the outbox on its way: one message to one contact, as `notifications.pending` keeps it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from headrace.schemas.notification import Notification, NotificationState, Reason, Status

#: Channels whose messages all go to one server; of the others each contact is a server of its own.
ONE_SERVER = frozenset({"email", "push", "sms"})
#: Channels that disturb people: what is not critical does not come hours late.
DISTURBING = frozenset({"push", "sms"})


@dataclass(slots=True, eq=False)
class Row:
    """What is known of a message that is not finished.

        (outbox) ─▶ queued ─▶ sending ─▶ sent, delivered ─▶ (gone)
                      ▲        │ │ └───▶ dropped, dead ───▶ (gone)
                      └ failed ◀ └ crash ▶ unknown ─▶ asked for: sent, or sending again

    Args:
        partition: of the outbox.
        offset: in it; rows of one lane go in this order.
        number: of the contact among those of the notification, from 0.
        contact: where to.
        status: see above.
        attempts: begun, count.
        due_ms: not before this, ms since 1970 UTC.
        error: of the last attempt that failed.
        provider_id, sent_at: of the attempt that did not.
        packed: the notification, compressed: what waits takes little room.
    """

    partition: int
    offset: int
    number: int
    contact: str
    packed: bytes
    status: Status = "queued"
    attempts: int = 0
    due_ms: int = 0
    error: str | None = None
    provider_id: str | None = None
    sent_at: int | None = None
    delivered_at: int | None = None
    _notification: Notification | None = field(default=None, repr=False)
    #: Of the notification, so that it need not be unpacked: which way, to which server, in which order.
    channel: str = ""
    server: str = ""
    lane: tuple[str, str, str] = ("", "", "")
    kind: str = ""
    key: bytes = b""
    decided_at: int = 0
    #: Whether it would only disturb when it comes late.
    stales: bool = False

    def __post_init__(self) -> None:
        told = self.notification
        self.channel, self.kind = told.channel, told.kind
        self.server = "" if told.channel in ONE_SERVER else self.contact
        self.lane = (told.channel, self.contact, told.dedupKey)
        self.key = row_key(told.notificationId, self.number)
        self.decided_at = told.decidedAt
        self.stales = told.channel in DISTURBING and told.severity != "critical"

    @property
    def notification(self) -> Notification:
        """What it is about."""
        if self._notification is None:
            self._notification = read_notification(zlib.decompress(self.packed))
        return self._notification

    def body(self) -> bytes:
        """The notification as the outbox had it."""
        return zlib.decompress(self.packed)

    def rest(self) -> None:
        """Take little room until it is needed."""
        self._notification = None

    def encode(self) -> bytes:
        """The row as the topic has it."""
        document = {
            name: getattr(self, name)
            for name in _PLAIN
        } | {"notification": orjson.Fragment(self.body())}  # fmt: skip
        return orjson.dumps(document)

    @classmethod
    def decode(cls, partition: int, value: bytes) -> "Row":
        """A row from what `encode` made.

        Raises:
            ValueError: it is none.
        """
        document = orjson.loads(value)
        packed = zlib.compress(orjson.dumps(document.pop("notification")), 1)
        return cls(partition=partition, packed=packed, **document)

    def state(self, *, reasons: Sequence[Reason] = ()) -> NotificationState:
        """The row as the delivery log has it.

        Args:
            reasons: why it is not sent, after those why it was to be.
        """
        told = self.notification
        ids = tuple(each.alert.alertId for each in told.subjects)
        first = told.subjects[0].alert
        return NotificationState(
            notificationId=told.notificationId,
            alertId=ids[0],
            alertIds=ids if len(ids) > 1 else (),
            ruleId=first.ruleId,
            deviceId=first.deviceId,
            recipient=told.recipient,
            userId=told.userId,
            channel=told.channel,
            kind=told.kind,
            step=told.step,
            status=self.status,
            reasons=(*told.reasons, *reasons),
            contact=self.contact,
            attempts=self.attempts,
            providerId=self.provider_id,
            error=self.error,
            decidedAt=told.decidedAt,
            sentAt=self.sent_at,
            deliveredAt=self.delivered_at,
        )


_PLAIN = ("offset", "number", "contact", "status", "attempts", "due_ms", "error", "provider_id", "sent_at",
          "delivered_at")  # fmt: skip


def rows_of(partition: int, offset: int, value: bytes, attempts: int = 0, number: int | None = None) -> list[Row]:
    """A row for each contact of a notification in the outbox.

    Args:
        attempts: made before it was sent back from the dead letters.
        number: of the only contact that is meant, from 0; None for all.
    Raises:
        ValueError: it is no notification, or about nothing.
    """
    told = read_notification(value)
    if not told.subjects:
        raise ValueError("a notification without subjects is about nothing")
    if not told.contacts:
        raise ValueError("a notification without contacts goes nowhere")
    packed = zlib.compress(value, 1)
    return [
        Row(partition, offset, place, contact, packed, attempts=attempts, _notification=told)
        for place, contact in enumerate(told.contacts)
        if (told.contacts.index(contact) == place if number is None else place == number)
    ]


def read_notification(value: bytes) -> Notification:
    """A notification from the outbox; what a newer headrace has added is left out.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return Notification.model_validate_json(value, extra="ignore")


def row_key(notification_id: str, number: int) -> bytes:
    """The key of a contact's row: the notification id, and after the first contact the place of the contact."""
    return (notification_id if not number else f"{notification_id}#{number + 1}").encode()
