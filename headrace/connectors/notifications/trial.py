"""A message that tries whether a channel reaches somebody."""

from typing import NamedTuple

from headrace.connectors.notifications.channel import Channel, ContactGone, Message, Refused, SendLater
from headrace.connectors.notifications.content import Renderer
from headrace.connectors.notifications.languages import nearest, words
from headrace.schemas.alert import Alert, Resolution
from headrace.schemas.notification import Channel as ChannelName
from headrace.schemas.notification import Kind, Notification, Reader, Subject

#: Where an alert is an incident that somebody would have to close: its end is sent, too.
WITH_END = ("pagerduty", "alertmanager")


class Target(NamedTuple):
    """Somebody on one channel.

    Args:
        recipient: as in `headrace.schemas.notification.Notification`.
        channel: how.
        contact: where; see `Notification.contacts`.
        reader: for whom it is written.
        user_id: of a person.
    """

    recipient: str
    channel: ChannelName
    contact: str
    reader: Reader = Reader()
    user_id: str | None = None


class Tried(NamedTuple):
    """What became of it.

    Args:
        target: who.
        status: sent: the receiver has taken it; later: it has not, and delivery would try again; refused: it never
            will; gone: nothing reaches this contact any more.
        provider_id: what the receiver calls it.
        error: why not.
    """

    target: Target
    status: str
    provider_id: str | None = None
    error: str | None = None


async def try_target(target: Target, channel: Channel, renderer: Renderer, identity: str, now_ms: int) -> Tried:
    """Send a message that says that it is a test, once.

    Args:
        identity: of it, different each time.
        now_ms: since 1970 UTC.
    """
    provider_id: str | None = None
    kinds: tuple[Kind, ...] = ("alert", "resolved") if target.channel in WITH_END else ("alert",)
    for kind in kinds:
        notification = _notification(target, kind, identity, now_ms)
        message = Message(notification, target.contact, renderer.render(notification))
        try:
            provider_id = (await channel.send(message)).provider_id or provider_id
        except SendLater as error:
            return Tried(target, "later", provider_id, str(error))
        except ContactGone as error:
            return Tried(target, "gone", provider_id, str(error))
        except Refused as error:
            return Tried(target, "refused", provider_id, str(error))
    return Tried(target, "sent", provider_id)


def _notification(target: Target, kind: Kind, identity: str, now_ms: int) -> Notification:
    texts = words(nearest(target.reader.language))
    alert = Alert(
        alertId=identity,
        revision=2 if kind == "resolved" else 1,
        ruleId="headrace-test",
        ruleName=texts["test_rule"],
        deviceId="headrace",
        deviceType="headrace",
        severity="info",
        status="resolved" if kind == "resolved" else "triggered",
        condition=texts["test_condition"],
        metric="test",
        triggeredAt=now_ms,
        resolvedAt=now_ms if kind == "resolved" else None,
        resolved=Resolution(by="condition") if kind == "resolved" else None,
        groupKey="headrace/test",
    )
    return Notification(
        notificationId=f"{identity}-end" if kind == "resolved" else identity,
        dedupKey=identity,
        recipient=target.recipient,
        userId=target.user_id,
        channel=target.channel,
        contacts=(target.contact,),
        kind=kind,
        severity="info",
        subjects=(Subject(alert=alert),),
        reader=target.reader,
        decidedAt=now_ms,
    )
