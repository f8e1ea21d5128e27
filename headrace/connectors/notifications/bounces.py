"""Mails that say what became of mails: delivery status notifications (RFC 3464), from files, mboxes and maildirs."""

import mailbox
import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from pathlib import Path
from typing import Literal, NamedTuple

#: Larger files are no bounces, bytes: only headers of what came back are looked at.
LARGEST = 20 << 20
#: Enhanced status codes (RFC 3463) of an address that takes no mail any more: unknown mailbox or domain, moved without
#: an address, switched off.
_GONE = re.compile(r"5\.(1\.[12346]|1\.10|2\.1|4\.4)$")
#: The notification's id is the left side of the Message-ID of its mail; behind a dot the contact's place.
_OURS = re.compile(r"<([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.(\d{1,4}))?@", re.ASCII)
_PARSER = BytesParser(policy=policy.default.clone(raise_on_defect=False))
#: Of maildirs, where mails are.
_MAILDIR = ("new", "cur")


class Bounce(NamedTuple):
    """What a report says of one recipient.

    Args:
        notification_id: of the mail; None if the report has no Message-ID of ours.
        place: of the contact among those of the notification, from 0.
        contact: the address that we sent to; None if the report does not say.
        became: failed: it came back; delivered: it arrived; delayed: the server tries again by itself.
        status: enhanced status code, as in `5.1.1`.
        text: what the other server said.
    """

    notification_id: str | None
    place: int
    contact: str | None
    became: Literal["failed", "delivered", "delayed"]
    status: str
    text: str

    @property
    def gone(self) -> bool:
        """Whether the address takes no mail any more; a full mailbox, or a policy, may pass."""
        return self.became == "failed" and bool(_GONE.match(self.status))


def read_bounces(path: Path) -> Iterator[Bounce]:
    """What is reported in one mail, an mbox, or a maildir; mails that are no reports are passed over.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than a mail, or no file.
    """
    for mail in _mails(path):
        yield from bounces_of(mail)


def bounces_of(mail: bytes) -> Iterator[Bounce]:
    """What one mail reports; nothing if it is no report."""
    message = _PARSER.parsebytes(mail)
    if message.get_content_type() != "multipart/report":
        return
    parts = list(message.walk())
    notification_id, place = _original(parts)
    for part in parts:
        if part.get_content_type() != "message/delivery-status":
            continue
        blocks = part.get_payload()
        for block in blocks if isinstance(blocks, list) else []:
            found = _recipient(block, notification_id, place) if isinstance(block, Message) else None
            if found is not None:
                yield found


def _recipient(block: Message, notification_id: str | None, place: int) -> Bounce | None:
    action = _field(block, "Action").lower()
    became: Literal["failed", "delivered", "delayed"]
    if action == "failed":
        became = "failed"
    elif action in ("delivered", "relayed", "expanded"):
        became = "delivered"
    elif action == "delayed":
        became = "delayed"
    else:
        return None  # the block about the report itself
    contact = _field(block, "Original-Recipient") or _field(block, "Final-Recipient")
    status = re.match(r"\d\.\d{1,3}\.\d{1,3}", _field(block, "Status"))
    said = _field(block, "Diagnostic-Code")
    return Bounce(
        notification_id,
        place,
        contact.partition(";")[2].strip().strip("<>") or None,
        became,
        status[0] if status else "",
        " ".join(said.partition(";")[2].split())[:300] or f"status {status[0] if status else 'unknown'}",
    )


def _field(block: Message, name: str) -> str:
    return str(block.get(name, "")).strip()


def _original(parts: list[EmailMessage] | list[Message]) -> tuple[str | None, int]:
    """The notification and the place of its contact, from the mail that the report is about, or its headers."""
    for part in parts[1:]:
        kind = part.get_content_type()
        if kind == "text/rfc822-headers":
            text = part.get_payload(decode=True)
            found = _OURS.search(_message_id(text)) if isinstance(text, bytes) else None
        else:
            found = _OURS.search(str(part.get("Message-ID", "")))
        if found:
            return found[1], int(found[2] or 0)
    return None, 0


def _message_id(headers: bytes) -> str:
    return str(_PARSER.parsebytes(headers, headersonly=True).get("Message-ID", ""))


def _mails(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        if not any((path / name).is_dir() for name in _MAILDIR):
            raise ValueError("is a folder, and no maildir: it has neither new nor cur")
        for name in _MAILDIR:
            for each in sorted((path / name).iterdir()) if (path / name).is_dir() else []:
                yield _whole(each)
        return
    with path.open("rb") as file:
        is_mbox = file.read(5) == b"From "
    if not is_mbox:
        yield _whole(path)
        return
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.iterkeys():
            yield box.get_bytes(key)
    finally:
        box.close()


def _whole(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB: no mail")
    return path.read_bytes()
