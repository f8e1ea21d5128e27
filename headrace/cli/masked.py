"""How commands show contacts: enough to know which one is meant, too little to reach anybody or get in anywhere."""

import re
from urllib.parse import urlsplit

from headrace.schemas.dead_contact import DeadContact
from headrace.schemas.notification import NotificationState
from headrace.schemas.user import User

_CONTACTS = re.compile(r"https?://[^\s<>\"']+|[^\s<>@\"']+@[^\s<>@\"':,;]+|\+[0-9]{7,15}\b")
#: Characters that are left at the end of a number or a token.
LEFT = 3


def masked(contact: str) -> str:
    """A mail address, number, token or address of a webhook without what makes it one.

    Hosts stay: paths and queries of webhooks hold secrets, and often are all of the secret.

    >>> [masked(each) for each in ("ada@example.com", "+491701234567", "fcm-token-123", "https://a.io/hook/s3cret?k=1")]
    ['a…@example.com', '+49…567', 'fcm…123', 'https://a.io/…']
    """
    if contact.startswith(("http://", "https://")):
        try:
            return f"{contact.partition('://')[0]}://{urlsplit(contact).netloc.rpartition('@')[2]}/…"
        except ValueError:
            return "…"
    name, at, domain = contact.rpartition("@")
    if at:
        return f"{name[:1]}…@{domain}"
    return f"{contact[:LEFT]}…{contact[-LEFT:]}" if len(contact) > 2 * LEFT + 1 else "…"


def masked_recipient(recipient: str) -> str:
    """Users and integrations as they are, the webhook of a rule without its path.

    >>> masked_recipient("user:ada"), masked_recipient("webhook:https://hooks.example.com/services/T0/B0/s3cret")
    ('user:ada', 'webhook:https://hooks.example.com/…')
    """
    kind, colon, name = recipient.partition(":")
    return f"{kind}:{masked(name)}" if colon and kind == "webhook" else recipient


def masked_user(user: User) -> User:
    """Somebody without their contacts; what they have is still to be seen."""
    tokens = tuple(each.model_copy(update={"token": masked(each.token)}) for each in user.device_tokens)
    update: dict[str, object] = {"device_tokens": tokens}
    update |= {name: masked(value) for name in ("email", "phone") if (value := getattr(user, name)) is not None}
    return user.model_copy(update=update)


def masked_text(text: str) -> str:
    """What a server said, with every address and number in it masked: many repeat to whom they say it.

    >>> masked_text("550 5.1.1 <ada@example.com>: no such user, see https://mx.example.com/why?to=ada@example.com")
    '550 5.1.1 <a…@example.com>: no such user, see https://mx.example.com/…'
    """
    return _CONTACTS.sub(lambda found: masked(found[0]), text)


def masked_state(state: NotificationState) -> NotificationState:
    """A row of the delivery log."""
    contact = _shown(state.contact, state.recipient) if state.contact is not None else None
    error = masked_text(state.error) if state.error is not None else None
    shown = {"recipient": masked_recipient(state.recipient), "contact": contact, "error": error}
    return state.model_copy(update=shown)


def masked_contact(contact: DeadContact) -> DeadContact:
    """A contact that nothing is sent to any more."""
    reason = masked_text(contact.reason.replace(contact.contact, masked(contact.contact)))
    name = _shown(contact.contact, contact.recipient)
    return contact.model_copy(
        update={"contact": name, "recipient": masked_recipient(contact.recipient), "reason": reason}
    )


def _shown(contact: str, recipient: str) -> str:
    """The contact of an integration is its name."""
    return contact if recipient.startswith("integration:") else masked(contact)
