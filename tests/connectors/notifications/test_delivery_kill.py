"""Delivery that ends at any point, again and again: nothing is lost, and what comes twice is known to."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.notifications.channel import ContactGone, Message, Refused, SendLater, Sent
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.log import Transaction
from headrace.schemas import topics
from headrace.schemas.notification import Kind
from tests.connectors.notifications.outbox import (
    Receiver,
    all_records,
    deliverer,
    make_topics,
    notification,
    pending,
    put,
    states,
)

ALERTS = 4


class Kill(NamedTuple):
    """Where a process ends: before or after the effect of a commit, or once a receiver has something."""

    where: Literal["before", "after", "received"]
    number: int


class MortalLog:
    """A log of which one process sees no more from a point on; the log itself goes on."""

    def __init__(self, log: EmbeddedLog, kill: Kill | None) -> None:
        self._log = log
        self._kill = kill
        self._commits = 0
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def commit(self, transaction: Transaction) -> Any:
        """As the log does, until the end."""
        self._commits += 1
        due = self._kill is not None and self._kill.where != "received" and self._commits >= self._kill.number
        if self.dead or (due and self._kill is not None and self._kill.where == "before"):
            self.dead = True
            raise LogError("killed")
        found = await self._log.commit(transaction)
        if due:
            self.dead = True
            raise LogError("killed")
        return found


class Findable(Receiver):
    """Its provider can be asked."""

    async def find(self, message: Message) -> Sent | None:
        """Whether it was got."""
        return next((Sent(f"p{n}") for n, each in enumerate(self.got) if _key(each) == _key(message)), None)


def _key(message: Message) -> tuple[str, str]:
    return message.notification.notificationId, message.contact


KILLS = st.builds(Kill, st.sampled_from(["before", "after", "received"]), st.integers(1, 12))
#: What a receiver says to its n-th message, beside taking it.
ANSWERS = st.lists(st.sampled_from(["take", "take", "take", "later", "refuse", "gone"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(KILLS, max_size=6), ANSWERS, st.booleans())
def test_nothing_is_lost_and_no_repeat_is_silent(kills: list[Kill], answers: list[str], findable: bool) -> None:
    """Whatever ends when: each row is sent, or dead with its reason; each repeat has an `unknown` before it."""
    asyncio.run(_deliver(kills, answers, findable))


async def _deliver(kills: list[Kill], answers: list[str], findable: bool) -> None:
    log = EmbeddedLog(MEMORY)
    await make_topics(log)
    left = list(answers)
    mortal = MortalLog(log, None)

    def answer(message: Message) -> None:
        match left.pop(0) if left else "take":
            case "later":
                raise SendLater("later")
            case "refuse":
                raise Refused("never")
            case "gone":
                raise ContactGone("gone")
        kill = mortal._kill
        if kill is not None and kill.where == "received" and len(receiver.got) + 1 >= kill.number:
            mortal.dead = True

    receiver = (Findable if findable else Receiver)(answer=answer)
    kinds: tuple[Kind, ...] = ("alert", "resolved")
    wanted = [notification(f"a{n}", f"u{n % 2}", "email", kind) for n in range(ALERTS) for kind in kinds]
    await put(log, *wanted)

    for kill in [*kills, None]:
        mortal = MortalLog(log, kill)
        await _run(mortal, receiver)

    await _check(log, receiver, wanted, findable=findable)
    await log.close()


async def _run(mortal: MortalLog, receiver: Receiver) -> None:
    """One process, until all is done or it is killed."""
    stop = asyncio.Event()
    delivery = deliverer(mortal, receiver)
    running = asyncio.create_task(delivery.run(stop))

    async def done() -> bool:
        behind = sum((await mortal.end_offsets(topics.OUTBOX)).values())
        return behind == sum((await mortal.positions("notify", topics.OUTBOX)).values()) and not await pending(mortal)

    while not running.done() and not await done():
        await asyncio.sleep(0.002)
    stop.set()
    with suppress(LogError):
        await running


async def _check(log: EmbeddedLog, receiver: Receiver, wanted: list[Any], *, findable: bool) -> None:
    events = [orjson.loads(record.value or b"") for record in await all_records(log, topics.NOTIFICATIONS)]
    crashes = {each["id"]: each["data"] for each in events if each["type"].endswith("unknown")}
    unknown = Counter(each["notificationId"] for each in crashes.values())
    got = Counter(message.notification.notificationId for message in receiver.got)
    found = await states(log)

    assert set(found) == {each.notificationId for each in wanted}
    for each in wanted:
        status = found[each.notificationId]["status"]
        assert status in ("sent", "dead", "dropped")
        assert status != "sent" or got[each.notificationId] >= 1
        repeats = got[each.notificationId] - 1
        assert repeats <= (0 if findable else unknown[each.notificationId])
    assert await pending(log) == []
    _check_order(receiver)
    commands = [orjson.loads(record.value or b"") for record in await all_records(log, topics.ALERT_COMMANDS)]
    told = {each["alertId"] for each in commands}
    assert told == {each.dedupKey for each in wanted if found[each.notificationId]["status"] == "sent"}
    assert len({each["commandId"] for each in commands}) == len(commands)
    letters = await all_records(log, topics.NOTIFICATION_DEAD_LETTERS)
    assert len(letters) == sum(state["status"] == "dead" for state in found.values())


def _check_order(receiver: Receiver) -> None:
    """An alert and its end, each where it came first, are in order."""
    firsts = list(dict.fromkeys((each.notification.dedupKey, each.notification.kind) for each in receiver.got))
    for name, kind in firsts:
        if kind == "alert" and (name, "resolved") in firsts:
            assert firsts.index((name, "alert")) < firsts.index((name, "resolved"))
