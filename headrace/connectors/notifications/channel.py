"""What every channel is: it sends one message to one contact, and says what became of it."""

from typing import NamedTuple, Protocol, runtime_checkable

from headrace.engine.errors import HeadraceError, RetryLater
from headrace.schemas.notification import Notification


class Content(NamedTuple):
    """A notification in words, for its reader.

    Args:
        title: one line, the subject of a mail.
        text: plain, lines of at most 78 characters where they can be broken.
        html: the same; None where there is none.
        short: title and what matters most, at most 160 characters of GSM 7-bit where that can be: one SMS.
        link: where more is to be seen; None if no dashboard is configured.
    """

    title: str
    text: str
    html: str | None
    short: str
    link: str | None = None


class Message(NamedTuple):
    """What a channel sends.

    Args:
        notification: what it is about; `notificationId` and contact are the key of a repeat.
        contact: one of its contacts.
        content: in words.
        attempt: from 1.
    """

    notification: Notification
    contact: str
    content: Content
    attempt: int = 1


class Sent(NamedTuple):
    """The receiver has taken it.

    Args:
        provider_id: what the receiver calls it; None if it does not say.
        delivered: whether it has arrived with the person, as far as the receiver can know; else it is on its way.
    """

    provider_id: str | None = None
    delivered: bool = False


class SendLater(RetryLater):
    """It was not taken, or nobody knows; a repetition may help. See `RetryLater` for when."""


class Refused(HeadraceError):
    """It will never be taken like this; says why."""


class ContactGone(Refused):
    """Nothing will reach this contact any more: a dead token, a mailbox that does not exist."""


class Channel(Protocol):
    """Sends messages by one way.

    Args:
        name: as in `[channels.NAME]`.
        idempotent: whether receivers drop a message that comes again with the same key.
        at_once: how many messages may be under way together.
    """

    name: str
    idempotent: bool
    at_once: int

    async def send(self, message: Message) -> Sent:
        """Hand it over; returns when the receiver has it.

        Raises:
            SendLater: try again.
            ContactGone: this contact is dead.
            Refused: this message will never be taken.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@runtime_checkable
class Findable(Protocol):
    """A channel whose provider can be asked whether it has a message, after a crash in between."""

    async def find(self, message: Message) -> Sent | None:
        """What became of an earlier attempt; None if the provider does not have it.

        Raises:
            SendLater: it cannot be asked now.
        """
        ...
