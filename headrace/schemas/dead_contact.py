"""Contacts that nothing reaches any more: what `notifications.contacts` carries, compacted, key `dead_contact_key`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from headrace.schemas.notification import Channel


class DeadContact(BaseModel):
    """One of them. Nothing is sent to it until its user's record changes, or somebody deletes the key.

    Args:
        channel: how it was reached.
        contact: an address, a number, a token.
        recipient: whose it is, as in `headrace.schemas.notification.Request`.
        userId: of a person.
        by: provider: who sends refused it as gone; bounce: a mail came back.
        reason: what they said.
        at: when, ms since 1970 UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: Channel
    contact: str
    recipient: str
    userId: str | None = None
    by: Literal["provider", "bounce"]
    reason: str
    at: int


def dead_contact_key(channel: str, contact: str) -> bytes:
    """The record key of a contact; addresses of mail are the same in capitals."""
    return f"{channel}:{contact.lower() if channel == 'email' else contact}".encode()
