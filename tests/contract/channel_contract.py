"""What every notification channel promises, whatever it speaks. A subclass brings channel and receiver as `world`.

The receiver is real: a server on loopback that keeps what it takes, and can be told to refuse, to hang, or to be gone.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Literal, get_args

import pytest

from headrace.connectors.notifications.channel import Channel, ContactGone, Message, Refused, SendLater
from headrace.connectors.notifications.content import Renderer
from headrace.connectors.notifications.example_notifications import example
from headrace.schemas.notification import Kind
from tests.connectors.notifications.messages import LINKS

#: What the receiver does with the next messages. gone: it says that the contact is no more.
Mood = Literal["take", "busy", "gone", "hang"]
#: In the configuration of every channel that has secrets: no error may show it.
SECRET = "0123456789abcdefGEHEIM0123456789"
#: Seconds that anything may take.
PATIENCE = 120.0
#: Ends of lines, ends of headers, markup, templates, marks that turn a line.
HOSTILE = "x\r\nBcc: eve@example.com\r\n\r\n<script>alert(1)</script> {{ 7*7 }} {% raw %} \u202e\u2028\x00 💥"


class ChannelWorld(ABC):
    """A channel with a receiver.

    Args:
        channel: opened.
        contact: whom it reaches.
    """

    #: Whether the receiver can say that a contact is no more.
    knows_gone = True
    channel: Channel
    contact: str

    @abstractmethod
    def set(self, mood: Mood) -> None:
        """What the receiver does from now on."""

    @abstractmethod
    def taken(self) -> list[str]:
        """What the receiver has taken, in order: the key by which it would know a repeat, or the whole message."""

    @abstractmethod
    async def hanging(self) -> None:
        """Return when a message is at the receiver, and hangs."""

    @abstractmethod
    async def leave(self) -> None:
        """The receiver is gone; nothing listens any more."""


def made(world: ChannelWorld, kind: Kind = "alert", number: int = 0, hostile: bool = False) -> Message:
    """A message for the world's contact.

    Args:
        number: other ones are other messages of other alerts.
        hostile: every name in it is an attack.
    """
    notification = example(kind)
    subject = notification.subjects[0]
    changed = {"alertId": f"alert-{number}", "deviceId": f"sensor-{number}"}
    if hostile:
        changed |= dict.fromkeys(("deviceName", "ruleName", "condition", "metric", "ruleId", "gatewayId"), HOSTILE)
    place = subject.place.model_copy(update={"location": HOSTILE} if hostile else {})
    subject = subject.model_copy(update={"alert": subject.alert.model_copy(update=changed), "place": place})
    notification = notification.model_copy(
        update={"subjects": (subject,), "contacts": (world.contact,), "dedupKey": f"alert-{number}"}
        | {"notificationId": f"00000000-0000-0000-0000-{number:012}"}
    )
    return Message(notification, world.contact, Renderer(links=LINKS).render(notification))


class ChannelContract:
    """Tests of the promises; a subclass has the fixture `world`."""

    async def test_every_kind_is_sent_once(self, world: ChannelWorld) -> None:
        """One message each at the receiver, and no more."""
        for number, kind in enumerate(get_args(Kind), 1):
            await world.channel.send(made(world, kind, number))

            assert len(world.taken()) == number

    async def test_busy_receiver_gets_it_later(self, world: ChannelWorld) -> None:
        """The error says so; nothing is repeated behind delivery's back; when it is asked again it takes it."""
        world.set("busy")
        with pytest.raises(SendLater) as raised:
            await world.channel.send(made(world))
        assert world.taken() == []
        assert raised.value.after > 0
        assert SECRET not in str(raised.value)

        world.set("take")
        await world.channel.send(made(world)._replace(attempt=2))

        assert len(world.taken()) == 1

    async def test_receiver_that_is_gone_gets_it_later(self, world: ChannelWorld) -> None:
        """Nothing listens: as good as busy."""
        await world.leave()

        with pytest.raises(SendLater) as raised:
            await asyncio.wait_for(world.channel.send(made(world)), PATIENCE)

        assert SECRET not in str(raised.value)

    async def test_contact_that_is_no_more_is_told_apart(self, world: ChannelWorld) -> None:
        """So that it can be struck off; for all other refusals it is not to blame."""
        if not world.knows_gone:
            assert world.channel.name in ("pagerduty", "alertmanager", "apprise"), "integrations have no contacts"
            return
        world.set("gone")

        with pytest.raises(ContactGone) as raised:
            await world.channel.send(made(world))

        assert SECRET not in str(raised.value)
        assert world.taken() == []

    async def test_repeat_has_the_same_key(self, world: ChannelWorld) -> None:
        """And another message another one."""
        await world.channel.send(made(world, number=1))
        await world.channel.send(made(world, number=1)._replace(attempt=2))
        await world.channel.send(made(world, number=2))

        first, again, other = world.taken()
        assert first == again != other

    async def test_cancelled_message_does_no_harm_to_the_next(self, world: ChannelWorld) -> None:
        """While the receiver hangs, delivery gives up; the next one arrives whole."""
        world.set("hang")
        sending = asyncio.create_task(world.channel.send(made(world, number=1)))
        await asyncio.wait_for(world.hanging(), PATIENCE)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        world.set("take")
        await asyncio.wait_for(world.channel.send(made(world, number=2)), PATIENCE)

        assert len(world.taken()) == 1

    async def test_as_many_at_once_as_it_says(self, world: ChannelWorld) -> None:
        """Each arrives once; none waits for a place that another one holds for good."""
        count = world.channel.at_once + 3

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(world.channel.send(made(world, number=number)))

        assert len(world.taken()) == len(set(world.taken())) == count

    async def test_names_are_never_more_than_text(self, world: ChannelWorld) -> None:
        """A device whose names are attacks is told of as any other, in one message."""
        await world.channel.send(made(world, hostile=True))

        assert len(world.taken()) == 1

    async def test_stranger_is_refused(self, world: ChannelWorld) -> None:
        """A contact that is none costs its message, and nothing else."""
        with pytest.raises(Refused):
            await world.channel.send(made(world)._replace(contact="no\r\nsuch contact"))
        await world.channel.send(made(world))

        assert len(world.taken()) == 1

    async def test_closes_without_a_message_and_twice(self, world: ChannelWorld) -> None:
        """A channel that sent nothing, and one that is closed, close."""
        await world.channel.close()
        await world.channel.close()
