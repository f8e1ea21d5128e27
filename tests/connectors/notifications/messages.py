"""Messages for tests of channels."""

from typing import Any

from headrace.connectors.notifications.channel import Message
from headrace.connectors.notifications.content import Renderer
from headrace.connectors.notifications.example_notifications import example
from headrace.connectors.notifications.views import Links
from headrace.schemas.notification import Kind, Reader

LINKS = Links("https://iot.example.com/alerts/{alert}", "https://iot.example.com/alerts/{alert}/acknowledge")
RENDERER = Renderer(links=LINKS)


def message(contact: str = "ada@example.com", kind: Kind = "alert", attempt: int = 1, **changed: Any) -> Message:
    """A message to one contact.

    Args:
        changed: fields of its notification.
    """
    notification = example(kind, Reader(name="Ada Lovelace")).model_copy(update={"contacts": (contact,), **changed})
    return Message(notification, contact, RENDERER.render(notification), attempt)
