"""Reports of mails that came back, as mail servers write them."""

import mailbox
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.notifications.bounces import Bounce, bounces_of, read_bounces
from headrace.connectors.notifications.state_changes import StoredState, apply_bounce
from headrace.connectors.notifications.state_log import read_states
from headrace.engine.clock import SteppedClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from tests.connectors.notifications.outbox import (
    NOW,
    Receiver,
    all_records,
    deliverer,
    delivering,
    make_topics,
    notification,
    passes,
    put,
    settle,
    states,
)

TOLD = notification("a1")

#: As Postfix writes it.
POSTFIX = """\
Return-Path: <>
From: MAILER-DAEMON@relay.example (Mail Delivery System)
To: alerts@example.com
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B/1"

This is a MIME-encapsulated message.

--B/1
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--B/1
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example
Arrival-Date: Sat, 15 Nov 2025 10:05:10 +0000 (UTC)

Final-Recipient: rfc822; ann@example.org
Original-Recipient: rfc822;ann@example.org
Action: {action}
Status: {status}
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 {status} <ann@example.org>: Recipient address
    rejected: User unknown

--B/1
Content-Description: Undelivered Message
Content-Type: {kind}

From: Alerts <alerts@example.com>
To: ann@example.org
Subject: [WARNING] Hot
Message-ID: <{id}@example.com>

--B/1--
"""


def report(
    action: str = "failed", status: str = "5.1.1", told: str = TOLD.notificationId, kind: str = "message/rfc822"
) -> bytes:
    return POSTFIX.format(action=action, status=status, id=told, kind=kind).encode()


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    found = EmbeddedLog(MEMORY)
    await make_topics(found)
    yield found
    await found.close()


async def known(log: EmbeddedLog) -> dict[bytes, StoredState]:
    return {key: StoredState(number, key, state) async for number, key, state in read_states(log, range(2))}


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers"])
def test_a_report_names_the_notification_and_what_the_server_said(kind: str) -> None:
    """From the whole mail, or its headers alone."""
    (bounce,) = bounces_of(report(kind=kind))

    assert bounce == Bounce(
        TOLD.notificationId, 0, "ann@example.org", "failed", "5.1.1",
        "550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown",
    )  # fmt: skip
    assert bounce.gone


@pytest.mark.parametrize(
    ("action", "status", "gone"),
    [("failed", "5.2.2", False), ("failed", "5.7.1", False), ("failed", "5.2.1", True), ("delayed", "4.4.1", False)],
)
def test_only_an_address_that_is_no_more_is_gone(action: str, status: str, gone: bool) -> None:
    """A full mailbox, a policy and a delay may pass."""
    (bounce,) = bounces_of(report(action, status))

    assert bounce.gone is gone


def test_mailboxes_of_all_kinds_are_read(tmp_path: Path) -> None:
    """A mail, an mbox, and a maildir with mails that are something else."""
    (tmp_path / "one.eml").write_bytes(report())
    box = mailbox.mbox(tmp_path / "box")
    box.add(report())
    box.add(b"Subject: hello\n\nNo report.\n")
    box.flush()
    box.close()
    folder = mailbox.Maildir(tmp_path / "Maildir")
    folder.add(report())

    assert [len(list(read_bounces(tmp_path / name))) for name in ("one.eml", "box", "Maildir")] == [1, 1, 1]


def test_a_folder_that_is_no_maildir_is_a_mistake(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(ValueError, match="neither new nor cur"):
        list(read_bounces(tmp_path))


@given(st.binary(max_size=400), st.integers(0, 1200))
def test_whatever_a_mail_is_reading_it_ends(noise: bytes, place: int) -> None:
    """Damaged reports are read as far as they are reports."""
    mail = report()

    assert len(list(bounces_of(mail[:place] + noise + mail[place:]))) <= 2


async def test_a_bounce_disables_the_contact_until_its_user_changes(log: EmbeddedLog) -> None:
    """The message is dead with what the server said, and the next one is not sent."""
    receiver = Receiver()
    await put(log, TOLD)
    async with delivering(deliverer(log, receiver)) as delivery:
        await settle(delivery)
    (bounce,) = bounces_of(report())

    told = await apply_bounce(log, bounce, await known(log), NOW + 1)
    again = await apply_bounce(log, bounce, await known(log), NOW + 2)
    await put(log, notification("a2"))
    async with delivering(deliverer(log, receiver, clock=SteppedClock(NOW + 3))) as delivery:
        await passes(lambda: delivery.statistics().dropped == 1)

    assert told is not None
    assert "ann@example.org is disabled" in told
    assert again is None
    assert receiver.titles() == ["alert a1"]
    state = (await states(log))[TOLD.notificationId]
    assert state["status"] == "dead"
    assert "User unknown" in state["error"]


async def test_a_report_of_arrival_makes_it_delivered(log: EmbeddedLog) -> None:
    """As the delivery log of the seeds has it."""
    await put(log, TOLD)
    async with delivering(deliverer(log, Receiver())) as delivery:
        await settle(delivery)
    (bounce,) = bounces_of(report("delivered", "2.0.0"))

    await apply_bounce(log, bounce, await known(log), NOW + 7)

    state = (await states(log))[TOLD.notificationId]
    assert (state["status"], state["deliveredAt"]) == ("delivered", NOW + 7)


async def test_a_report_about_somebody_elses_mail_changes_nothing(log: EmbeddedLog) -> None:
    """Anybody can send a report: it must know the id of a mail that was sent."""
    (bounce,) = bounces_of(report(told=notification("another").notificationId))

    assert await apply_bounce(log, bounce, await known(log), NOW) is None
    assert await all_records(log, topics.NOTIFICATIONS) == []
