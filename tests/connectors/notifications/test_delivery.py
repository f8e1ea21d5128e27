"""Delivery of the outbox on an embedded log."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import orjson
import pytest

from headrace.connectors.notifications.channel import ContactGone, Message, Refused, SendLater, Sent
from headrace.connectors.notifications.channel_queue import ChannelQueue
from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.connectors.notifications.row import rows_of
from headrace.engine.clock import SteppedClock, VirtualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Changes, TopicPartition, Transaction
from headrace.schemas import topics
from headrace.schemas.notification import Subject
from tests.connectors.notifications.outbox import (
    NOW,
    Receiver,
    alert,
    all_records,
    deliverer,
    delivering,
    make_topics,
    notification,
    passes,
    pending,
    put,
    settle,
    states,
    told,
)


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    found = EmbeddedLog(MEMORY)
    await make_topics(found)
    yield found
    await found.close()


async def test_each_contact_gets_it_once_and_the_log_says_so(log: EmbeddedLog) -> None:
    """A notification to two contacts is two messages, each begun in the log before it is sent."""
    receiver = Receiver()
    told_ann = notification("a1", "ann", "email", "alert", "ann@example.org", "ann@home.example")
    await put(log, told_ann)

    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)

    assert sorted(message.contact for message in receiver.got) == ["ann@example.org", "ann@home.example"]
    assert sorted(await told(log)) == [("sending", 1), ("sending", 1), ("sent", 1), ("sent", 1)]
    assert await pending(log) == []
    found = await states(log)
    assert sorted(found) == [told_ann.notificationId, f"{told_ann.notificationId}#2"]
    state = found[told_ann.notificationId]
    wanted = {"alertId": "a1", "userId": "ann", "channel": "email", "status": "sent", "providerId": "p-1"}
    assert {name: state[name] for name in wanted} == wanted
    assert state["sentAt"] >= NOW


async def test_events_carry_the_id_of_the_message_that_caused_them(log: EmbeddedLog) -> None:
    """Who follows a device's message by its id finds the notification."""
    await put(log, notification("a1"))

    async with delivering(deliverer(log, Receiver())) as delivery:
        await settle(delivery)

    events = await all_records(log, topics.NOTIFICATIONS)
    assert {event.headers[topics.MESSAGE_ID] for event in events} == {b"m-a1"}
    ids = [orjson.loads(event.value or b"")["id"] for event in events]
    assert ids == [f"{notification('a1').notificationId}/sending/1", f"{notification('a1').notificationId}/sent/1"]


async def test_alerts_are_told_once_for_all_that_was_sent_of_them(log: EmbeddedLog) -> None:
    """Mail and push of one alert, sent within a second, are one command with both channels."""
    channels = Receiver("email"), Receiver("push")
    await put(log, notification("a1"), notification("a1", channel="push"))

    async with delivering(deliverer(log, *channels)) as delivery:
        await settle(delivery)

    commands = [orjson.loads(record.value or b"") for record in await all_records(log, topics.ALERT_COMMANDS)]
    assert [(each["command"], each["alertId"], each["deviceId"], each["channels"]) for each in commands] == [
        ("notified", "a1", "d-a1", ["email", "push"])
    ]


async def test_a_digest_tells_each_of_its_alerts(log: EmbeddedLog) -> None:
    """Every alert in a digest gets a command."""
    subjects = tuple(Subject(alert=alert(name)) for name in ("a1", "a2"))
    await put(log, notification("a1", kind="digest", subjects=subjects))

    async with delivering(deliverer(log, Receiver())) as delivery:
        await settle(delivery)

    commands = [orjson.loads(record.value or b"") for record in await all_records(log, topics.ALERT_COMMANDS)]
    assert sorted(each["alertId"] for each in commands) == ["a1", "a2"]
    assert (await states(log))[notification("a1", kind="digest").notificationId]["alertIds"] == ["a1", "a2"]


async def test_a_receiver_down_for_half_an_hour_gets_all_of_it_once(log: EmbeddedLog) -> None:
    """What was decided while the receiver was down comes when it is back, once, and says how late it is."""
    clock = SteppedClock(NOW)
    back_at = NOW + 30 * 60_000

    def answer(message: Message) -> None:
        if clock.now_ms() < back_at:
            raise SendLater("connection refused")

    receiver = Receiver(answer=answer)
    await put(log, *(notification(f"a{number}") for number in range(300)))

    async with delivering(deliverer(log, receiver, clock=clock)) as delivery:
        await settle(delivery)
        statistics = delivery.statistics()

    assert sorted(message.notification.dedupKey for message in receiver.got) == sorted(f"a{n}" for n in range(300))
    assert all("min late" in title for title in receiver.titles())
    # One asks now and then; the others wait untried.
    assert statistics.failed < 200
    assert clock.now_ms() < back_at + 6 * 60_000


async def test_a_late_alert_that_is_over_says_so(log: EmbeddedLog) -> None:
    """An alert that comes late, with its end right behind it, names that end."""
    clock = SteppedClock(NOW)

    def answer(message: Message) -> None:
        if clock.now_ms() < NOW + 600_000:
            raise SendLater("away")

    receiver = Receiver(answer=answer)
    await put(log, notification("a1"), notification("a1", kind="resolved"))

    async with delivering(deliverer(log, receiver, clock=clock)) as delivery:
        await settle(delivery)

    first, second = receiver.titles()
    assert first.endswith("late, resolved] alert a1")
    assert second.endswith("late] resolved a1")
    assert "<body><p><strong>This message is" in (receiver.got[0].content.html or "")


async def test_late_is_what_readers_call_late(log: EmbeddedLog) -> None:
    """Where time runs faster than theirs, as in a demo, a message that came at once is not ten minutes late."""
    receiver = Receiver()
    await put(log, notification("a1", decidedAt=NOW - 600_000))

    async with delivering(deliverer(log, receiver, clock=VirtualClock(NOW, speed=60))) as delivery:
        await settle(delivery)

    assert receiver.titles() == ["alert a1"]


async def test_a_resolved_never_overtakes_its_alert(log: EmbeddedLog) -> None:
    """While an alert is being tried again, its end waits; another alert does not."""

    def answer(message: Message) -> None:
        if message.notification.dedupKey == "a1" and message.attempt < 3:
            raise SendLater("not now")

    receiver = Receiver(answer=answer)
    await put(log, notification("a1"), notification("a1", kind="resolved"), notification("a2"))

    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)

    assert receiver.titles() == ["alert a2", "alert a1", "resolved a1"]


async def test_a_channel_that_hangs_delays_no_other(log: EmbeddedLog) -> None:
    """Pushes go out while every mail hangs."""
    go_on = asyncio.Event()
    mail, push = Receiver("email", lambda message: go_on.wait(), at_once=2), Receiver("push")
    await put(log, *(notification(f"a{n}", channel=name) for n in range(20) for name in ("email", "push")))

    async with delivering(deliverer(log, mail, push)) as delivery:
        await passes(lambda: len(push.got) == 20)
        assert mail.got == []
        go_on.set()
        mail.answer = None
        await settle(delivery)

    assert len(mail.got) == 20


async def test_one_webhook_that_hangs_delays_no_other(log: EmbeddedLog) -> None:
    """A server of many takes at most half of what may be under way."""
    go_on = asyncio.Event()
    hook = Receiver(
        "webhook", lambda message: go_on.wait() if "slow" in message.contact else None, at_once=4
    )  # fmt: skip
    slow = [notification(f"s{n}", "slow", "webhook", "alert", "https://slow.example/") for n in range(10)]
    quick = [notification(f"q{n}", "quick", "webhook", "alert", "https://quick.example/") for n in range(10)]
    await put(log, *slow, *quick)

    async with delivering(deliverer(log, hook)) as delivery:
        await passes(lambda: sum("quick" in message.contact for message in hook.got) == 10)
        assert not any("slow" in message.contact for message in hook.got)
        go_on.set()
        await settle(delivery)


async def test_the_wait_that_a_server_asks_for_is_kept(log: EmbeddedLog) -> None:
    """Retry-After is a least wait."""
    clock = SteppedClock(NOW)
    times: list[int] = []

    def answer(message: Message) -> None:
        times.append(clock.now_ms())
        if message.attempt == 1:
            raise SendLater("429", after=90.0)

    await put(log, notification("a1"))

    async with delivering(deliverer(log, Receiver(answer=answer), clock=clock)) as delivery:
        await settle(delivery)

    assert 90_000 <= times[1] - times[0] < 95_000
    assert await told(log) == [("sending", 1), ("failed", 1), ("sending", 2), ("sent", 2)]


async def test_what_cannot_be_sent_for_long_goes_to_the_dead_letters(log: EmbeddedLog) -> None:
    """After `give_up_after` a row is dead, with its last error; the log keeps no row of it."""

    def answer(message: Message) -> None:
        raise SendLater("no route to host")

    await put(log, *(notification(f"a{number}") for number in range(20)))

    async with delivering(deliverer(log, Receiver(answer=answer), give_up_after=7200)) as delivery:
        await settle(delivery)

    letters = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert len(letters) == 20
    assert all(b"given up after 2." in letter.headers["dlq-reason"] for letter in letters)
    assert {state["status"] for state in (await states(log)).values()} == {"dead"}
    assert await pending(log) == []


async def test_a_push_that_is_not_critical_does_not_come_hours_late(log: EmbeddedLog) -> None:
    """It is dropped after an hour, with the reason; a critical one is still tried."""
    clock = SteppedClock(NOW)

    def answer(message: Message) -> None:
        if clock.now_ms() < NOW + 4 * 3_600_000:
            raise SendLater("away")

    push = Receiver("push", answer)
    await put(log, notification("a1", channel="push"), notification("a2", channel="push", severity="critical"))

    async with delivering(deliverer(log, push, clock=clock)) as delivery:
        await settle(delivery)

    assert [title.partition("] ")[2] for title in push.titles()] == ["alert a2"]
    dropped = (await states(log))[notification("a1", channel="push").notificationId]
    assert (dropped["status"], dropped["reasons"][-1]["code"]) == ("dropped", "expired")


async def test_a_refused_message_is_dead_at_once(log: EmbeddedLog) -> None:
    """What will never be taken is tried once; others go on."""

    def answer(message: Message) -> None:
        if message.notification.dedupKey == "a1":
            raise Refused("550 no such thing")

    receiver = Receiver(answer=answer)
    await put(log, notification("a1"), notification("a2"))

    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)

    assert receiver.titles() == ["alert a2"]
    (letter,) = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert letter.headers["dlq-reason"] == b"550 no such thing"


async def test_nothing_more_is_sent_to_a_dead_contact(log: EmbeddedLog) -> None:
    """A contact that is gone is tried once; the next notification says why it is not sent."""

    def answer(message: Message) -> None:
        raise ContactGone("550 5.1.1 mailbox unknown")

    receiver = Receiver(answer=answer)
    await put(log, notification("a1"))
    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)
        receiver.answer = None
        await put(log, notification("a2"))
        await passes(lambda: delivery.statistics().dropped == 1)
    # The next process knows it too.
    await put(log, notification("a3"))
    async with delivering(deliverer(log, receiver)) as delivery:
        await passes(lambda: delivery.statistics().dropped == 1)

    assert receiver.got == []
    state = (await states(log))[notification("a3").notificationId]
    assert (state["status"], state["reasons"][-1]["code"]) == ("dropped", "no-contact")


async def test_a_changed_user_record_brings_a_contact_back(log: EmbeddedLog) -> None:
    """Who has been changed in the registry is sent to again."""

    def answer(message: Message) -> None:
        raise ContactGone("gone")

    receiver = Receiver(answer=answer)
    clock = SteppedClock(NOW)
    await put(log, notification("a1"))
    async with delivering(deliverer(log, receiver, clock=clock)) as delivery:
        await settle(delivery)
        receiver.answer = None
        users = TopicPartition(topics.USERS, 0)
        await log.commit(Transaction(changes=[Changes(users, {b"ann": b"{}"}, clock.now_ms() + 1)]))
        await passes(lambda: delivery._dead.get("email", "Ann@example.org") is None)
        await put(log, notification("a2"))
        await passes(lambda: len(receiver.got) == 1)

    assert receiver.titles() == ["alert a2"]


async def test_a_channel_that_is_not_configured_is_a_dead_letter(log: EmbeddedLog) -> None:
    """What has no way out says what to configure, and can be sent again."""
    await put(log, notification("a1", channel="sms"))

    async with delivering(deliverer(log, Receiver())) as delivery:
        await settle(delivery)

    (letter,) = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert b"[channels.sms]" in letter.headers["dlq-reason"]


async def test_a_record_that_is_no_notification_stops_nothing(log: EmbeddedLog) -> None:
    """It goes to the dead letters with its place; what follows is sent."""
    receiver = Receiver()
    await put(log, b"{}", b"\xff", notification("a1", subjects=()), notification("a2"))

    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)

    assert receiver.titles() == ["alert a2"]
    letters = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert len(letters) == 3
    assert {letter.headers["dlq-topic"] for letter in letters} == {b"notifications.outbox"}


async def test_a_mistake_of_a_channel_is_a_failed_attempt(log: EmbeddedLog) -> None:
    """Whatever a channel raises, the row is tried again and others go on."""

    def answer(message: Message) -> None:
        if message.attempt == 1:
            raise ZeroDivisionError("no")

    receiver = Receiver(answer=answer)
    await put(log, notification("a1"))

    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)

    assert receiver.titles() == ["alert a1"]


def test_a_place_is_free_before_what_came_of_it_is_written() -> None:
    """Another alert takes the place once the server has answered; what is behind it of the same alert still waits."""
    queue = ChannelQueue(1, DeliverySettings(), Random(7))
    first, second, other = (
        rows_of(0, offset, told.model_dump_json().encode())[0]
        for offset, told in enumerate([notification("a1"), notification("a1", kind="resolved"), notification("a2")])
    )
    for row in (first, second, other):
        queue.add(row)

    taken = [queue.next(NOW), queue.next(NOW)]
    queue.free(first)
    taken += [queue.next(NOW), queue.next(NOW)]
    queue.ended(other)
    taken.append(queue.next(NOW))
    queue.ended(first)
    taken += [queue.next(NOW), queue.next(NOW)]

    assert taken == [first, None, other, None, None, second, None]
    assert queue.under_way == 1


async def test_memory_is_bounded_while_a_receiver_is_down(log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `most_waiting` rows the outbox waits, and nothing of it is lost."""
    monkeypatch.setattr("headrace.connectors.notifications.tenure.MOST_READ", 20)
    down = True

    def answer(message: Message) -> None:
        if down:
            raise SendLater("away", after=3600)

    receiver = Receiver(answer=answer)
    await put(log, *(notification(f"a{number}", user=f"u{number}") for number in range(300)))

    async with delivering(deliverer(log, receiver, most_waiting=100, max_backoff=3600)) as delivery:
        await passes(lambda: delivery.statistics().failed >= 5)
        assert delivery.statistics().waiting <= 100 + 20
        down = False
        await passes(lambda: delivery.statistics().sent == 300)

    assert len({message.notification.dedupKey for message in receiver.got}) == 300


async def test_attempts_under_way_may_end_when_it_is_stopped(log: EmbeddedLog) -> None:
    """Ctrl-C waits for them: nothing is unknown afterwards."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(message: Message) -> Sent:
        begun.set()
        await go_on.wait()
        return Sent("x")

    await put(log, notification("a1"))
    stop = asyncio.Event()
    running = asyncio.create_task(deliverer(log, Receiver(answer=answer)).run(stop))
    await begun.wait()
    stop.set()
    await asyncio.sleep(0)
    go_on.set()
    await running

    assert await told(log) == [("sending", 1), ("sent", 1)]
    assert await pending(log) == []
