"""Sequence numbers of messages that a broker delivers again: what ingest recognises changes no count."""

from typing import NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.sequence_fold import WINDOW, Counted, counted
from headrace.connectors.formats.sequence import said_again
from headrace.engine.records import Header, Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from tests.agents.test_sequences import METER, T0, ingest, newest, told

#: Numbers between the beginnings of a device's runs; less than what a gap may have.
APART = 10_000
MODULO = 2**32
#: More than any history takes, ms: ingest refuses no time for being ahead.
LATER = 10**9


class Sent(NamedTuple):
    """A message of a device that began anew `run` times before; `is_good` is whether ingest can read it."""

    run: int
    number: int
    time: int
    is_good: bool


class Arrival(NamedTuple):
    """A message on its way; `is_again` if it came before."""

    message: Sent
    is_again: bool


def log_of(arrivals: list[Arrival], *, stated: bool) -> Records:
    """Raw messages of one device; with `stated` the time is in the header too, as ChirpStack's is."""
    headers: dict[str, Header] = {
        topics.PROFILE: b"p",
        topics.DEVICE_TYPE: METER.name.encode(),
        topics.SEQUENCE: [
            b"%d %d" % (each.number, MODULO) + (b" %d" % each.time if stated else b"") for each, _ in arrivals
        ],
    }
    payloads = [
        orjson.dumps({"timestamp": each.time, "kwh": each.number if each.is_good else "?"}) for each, _ in arrivals
    ]
    appended = [T0 + LATER + place for place in range(len(arrivals))]
    return Records([b"d"] * len(arrivals), list(payloads), appended, headers)


@st.composite
def histories(draw: st.DrawFn, *, all_good: bool) -> list[Arrival]:
    """What comes of a device that begins anew, loses messages and sends some late, over a bridge that dies."""
    runs = draw(st.integers(1, 3))
    time = T0
    sent: list[Sent] = []
    for run in range(runs):
        first = APART * (runs - run) + draw(st.integers(0, 3))
        for place in range(draw(st.integers(1, 25))):
            time += draw(st.sampled_from([1, 1_000, 400_000]))
            good = all_good or draw(st.booleans())
            if draw(st.integers(0, 5)) or place == 0:
                sent.append(Sent(run, first + place, time, good))
    order = sorted(range(len(sent)), key=lambda place: place + draw(st.sampled_from([0, 0, 0, 2.5, 6.5])))
    arrivals: list[Arrival] = []
    for place in order:
        arrivals.append(Arrival(sent[place], False))
        if not draw(st.integers(0, 9)):
            # The bridge dies; what it had not acknowledged, with all before it in flight, comes again.
            unsure = draw(st.integers(1, 20))
            arrivals += [Arrival(each.message, True) for each in arrivals[-unsure:]]
    return arrivals


def naive(arrivals: list[Arrival]) -> dict[str, int]:
    """The counts of somebody who knows of each message which it is."""
    counts = dict.fromkeys(("received", "lost", "late", "repeats", "resets"), 0)
    run, first, last = -1, 0, 0
    for message, is_again in arrivals:
        if is_again or message.run < run:
            continue
        counts["received"] += 1
        if message.run > run:
            counts["resets"] += run >= 0
            run, first, last = message.run, message.number, message.number
        elif message.number > last:
            counts["lost"] += message.number - last - 1
            last = message.number
        else:
            counts["late"] += 1
            counts["lost"] -= message.number > first
    return counts | {"last": last, "modulo": MODULO}


@given(histories(all_good=True), st.lists(st.integers(1, 9), max_size=12))
def test_what_comes_again_changes_no_count(arrivals: list[Arrival], sizes: list[int]) -> None:
    """By ingest's own times, whatever is lost or late, however often the device begins anew and the worker dies."""
    found = newest(drive(ingest(), log_of(arrivals, stated=False), batch_sizes=sizes, restart=ingest))["d"]["p"]
    found.pop("time")

    assert found == naive(arrivals)


@given(histories(all_good=False), st.lists(st.integers(1, 9), max_size=12))
def test_refused_messages_that_come_again_change_no_count(arrivals: list[Arrival], sizes: list[int]) -> None:
    """Ingest cannot recognise what it cannot read: what may have been there is no repeat."""
    found = newest(drive(ingest(), log_of(arrivals, stated=True), batch_sizes=sizes, restart=ingest))["d"]["p"]
    found.pop("time")

    assert found == naive(arrivals)


def test_without_any_time_refused_messages_never_begin_anew() -> None:
    """A hundred that come again from the first on are behind by more than anybody remembers."""
    bad = [Arrival(Sent(0, number, T0, False), False) for number in range(5, 105)]
    records = log_of([*bad, *bad], stated=False)

    found = newest(drive(ingest(), records))["d"]["p"]

    assert found == told(last=104, received=100, modulo=MODULO)


@pytest.mark.parametrize("is_good", [True, False])
def test_without_any_time_what_a_broker_says_is_there_again(is_good: bool) -> None:
    """A hundred that it may have delivered before change nothing, from 0 on; what is ahead came for the first time."""
    first = log_of([Arrival(Sent(0, number, T0, is_good), False) for number in range(100)], stated=False)
    later = log_of([Arrival(Sent(0, number, T0, is_good), True) for number in range(102)], stated=False)
    for records in (first, later):
        records.values[:] = [orjson.dumps({"kwh": place if is_good else "?"}) for place in range(len(records))]
    header = later.headers[topics.SEQUENCE]
    assert isinstance(header, list)
    later.headers[topics.SEQUENCE] = [said_again(each or b"") for each in header]
    later.timestamps[:] = [time + 1_000 for time in later.timestamps]

    found = newest(drive(ingest(), Records.concat([first, later])))["d"]["p"]

    assert found == told(last=101, received=102, modulo=MODULO)


def test_a_device_with_a_coarse_clock_loses_nothing() -> None:
    """Messages of one second that say the same are dropped as repeats, but their numbers came."""
    same = [Arrival(Sent(0, number, T0, True), False) for number in range(3)]
    records = log_of(same, stated=False)
    records.values[:] = [records.values[0]] * 3

    driven = drive(ingest(), records)

    assert len(driven.sent[topics.READINGS]) == 1
    assert newest(driven)["d"]["p"] == told(last=2, received=3, modulo=MODULO, time=T0)


def test_another_message_with_an_old_number_is_a_repeat() -> None:
    """The device says something else under a number that it has used: ingest knows that it is another message."""
    records = log_of([Arrival(Sent(0, number, T0 + number, True), False) for number in (1, 2, 2)], stated=False)
    records.values[2] = orjson.dumps({"timestamp": T0 + 2, "kwh": 77})

    assert newest(drive(ingest(), records))["d"]["p"] == told(last=2, received=2, repeats=1, modulo=MODULO, time=T0 + 2)


@pytest.mark.parametrize("before", [None, Counted(last=9, modulo=MODULO, time=T0)])
def test_what_came_before_the_numbers_were_counted(before: Counted | None) -> None:
    """A message of the time before its profile had a sequence, delivered again, begins no stream and changes none."""
    assert counted(before, 9 + WINDOW, MODULO, T0, "duplicate") == (before, {})
