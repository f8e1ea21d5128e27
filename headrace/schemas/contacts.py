"""How contacts are shown and logged: enough to know which one is meant, too little to reach anybody."""

import re
from typing import get_args
from urllib.parse import urlsplit

from headrace.schemas.user import Platform

_CONTACTS = re.compile(r"https?://[^\s<>\"']+|[^\s<>@\"']+@[^\s<>@\"':,;]+|\+[0-9]{7,15}\b")
#: Characters that are left at the end of a number or a token.
LEFT = 3


def masked(contact: str) -> str:
    """A mail address, number, token or address of a webhook without what makes it one.

    Hosts stay: paths and queries of webhooks hold secrets, and often are all of the secret.

    >>> [masked(each) for each in ("ada@example.com", "+491701234567", "ios:fcm-token-123", "https://a.io/s3cret?k=1")]
    ['a…@example.com', '+49…567', 'ios:fcm…123', 'https://a.io/…']
    """
    platform, colon, token = contact.partition(":")
    if colon and platform in get_args(Platform):
        return f"{platform}:{masked(token)}"
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


def masked_text(text: str) -> str:
    """What a server said, with every address and number in it masked: many repeat to whom they say it.

    >>> masked_text("550 5.1.1 <ada@example.com>: no such user, see https://mx.example.com/why?to=ada@example.com")
    '550 5.1.1 <a…@example.com>: no such user, see https://mx.example.com/…'
    """
    return _CONTACTS.sub(lambda found: masked(found[0]), text)
