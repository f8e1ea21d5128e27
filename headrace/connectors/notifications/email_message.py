"""A notification as a mail: headers that nobody can add to, text and HTML."""

import uuid
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

from pydantic import TypeAdapter

from headrace.connectors.notifications.channel import Message, Refused
from headrace.connectors.notifications.email_settings import EmailSettings, parse_sender
from headrace.schemas.user import Email

_THREADS = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.notification.thread")
_ADDRESSES: TypeAdapter[str] = TypeAdapter(Email)
#: Characters of a subject.
LONGEST_SUBJECT = 200


class EmailMaker:
    """Makes mails of one sender; the same message makes the same bytes.

    Args:
        settings: with a sender.
    """

    def __init__(self, settings: EmailSettings) -> None:
        name, self._spec = parse_sender(settings.sender or "")
        self._sender = Address(display_name=name, addr_spec=self._spec)
        #: Of the sender: the right side of every Message-ID.
        self.domain = self._spec.rpartition("@")[2]
        self._settings = settings

    def make(self, message: Message) -> tuple[bytes, str]:
        """The mail, and the address on its envelope.

        Raises:
            Refused: the contact is no address.
        """
        notification, content = message.notification, message.content
        to = _address(message.contact)
        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._sender
        mail["To"] = to
        # A line's end in a title would begin a header.
        mail["Subject"] = " ".join(content.title.split())[:LONGEST_SUBJECT]
        mail["Date"] = formatdate(notification.decidedAt // 1000)
        mail["Message-ID"] = f"<{self._identity(message)}@{self.domain}>"
        # All mails of one alert are one conversation.
        mail["References"] = f"<{uuid.uuid5(_THREADS, notification.dedupKey)}@{self.domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Auto-Response-Suppress"] = "All"
        if self._settings.reply_to is not None:
            mail["Reply-To"] = _address(self._settings.reply_to)
        if self._settings.unsubscribe_url is not None:
            mail["List-Unsubscribe"] = f"<{self._settings.unsubscribe_url}>"
        mail.set_content(content.text, cte="quoted-printable")
        if content.html is not None:
            mail.add_alternative(content.html, subtype="html", cte="quoted-printable")
            mail.set_boundary(f"=_{uuid.uuid5(_THREADS, notification.notificationId).hex}")
        return mail.as_bytes(policy=SMTP), to.addr_spec

    @staticmethod
    def _identity(message: Message) -> str:
        """The notification's id; with its place behind it for the second contact and later ones."""
        contacts = message.notification.contacts
        place = contacts.index(message.contact) if message.contact in contacts else 0
        return f"{message.notification.notificationId}.{place}" if place else message.notification.notificationId


def _address(contact: str) -> Address:
    try:
        local, _, domain = _ADDRESSES.validate_python(contact).rpartition("@")
        return Address(username=local, domain=domain.encode("idna").decode())
    except (ValueError, LookupError) as error:  # ValidationError and UnicodeError are ValueErrors
        raise Refused(f"{contact[:100]!r} is no mail address") from error
