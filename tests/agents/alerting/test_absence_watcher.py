"""Devices that are silent, against a plain-Python oracle, and how fleets fare after outages."""

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.testkit import reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.living import SECOND, T0, Line, Living, rule
from tests.agents.alerting.silence_oracle import Spoke, oracle

MINUTE, HOUR = 60, 3600
QUIET = rule("quiet", {"silent_for": 600})


def lines(log: Iterable[Spoke]) -> list[Line]:
    """Records of `telemetry.readings`."""
    found = []
    for place, (device, kind, time, stamp) in enumerate(log):
        at, when = np.zeros(1, dtype=np.int64), np.array([time], dtype=np.int64)
        readings = Readings(kind, at, [device], when, [f"message-{place}"], {"power": np.ones(1)})
        (record,) = reading_records(readings, [stamp])
        found.append((topics.READINGS, device, record.value or b"", stamp))
    return found


def every(device: str, interval: float, first: float, last: float, kind: str = "meter") -> list[Spoke]:
    """A device that sends at once what it measures; seconds from T0."""
    moments = [T0 + round(second * SECOND) for second in np.arange(first, last, interval)]
    return [(device, kind, moment, moment) for moment in moments]


def merged(*parts: list[Spoke]) -> list[Spoke]:
    return sorted((each for part in parts for each in part), key=lambda each: (each[3], each[0]))


def living(log: list[Spoke], *rules: AlertRule) -> Living:
    return Living(lambda: Alerts(rules or [QUIET])).give(lines(log))


def test_a_silent_device_is_alerted_about_when_the_limit_is_reached() -> None:
    """To the millisecond, whichever record shows it; its next record ends it."""
    told = living(merged(every("a", 10, 0, 100), every("a", 10, 2000, 2100), every("b", 7, 3, 2100)))

    assert told.story == [("quiet", "a", "triggered", 690.0), ("quiet", "a", "resolved", 2000.0)]
    triggered, resolved = told.alerts
    assert (triggered.metric, triggered.actualValue, triggered.threshold) == ("silence", 600.0, 600.0)
    assert triggered.metadata == {"lastSeen": T0 + 90 * SECOND, "usualInterval": 10.0}
    assert (resolved.resolvedValue, triggered.deviceType) == (1910.0, "meter")
    assert [record.headers.get(topics.MESSAGE_ID) is None for record in told.records] == [True, False]


def test_a_learned_limit_is_the_device_s_own() -> None:
    """Five intervals, when ten are known; `least` at the least."""
    learned = rule("late", {"silent_for": "learned", "least": 60})
    told = living(
        merged(
            every("fast", 1, 0, 600), every("usual", 60, 0, 1200), every("new", 60, 0, 540), every("b", 10, 5, 3600)
        ),
        learned,
    )

    assert told.story == [("late", "fast", "triggered", 659.0), ("late", "usual", "triggered", 1440.0)]


def test_time_alone_shows_who_is_silent() -> None:
    """Also after a restart; a lone device, of which nothing else tells; nothing is committed while nothing happens."""
    told = living(every("a", 10, 0, 100))
    told.die()
    assert told.agent.is_waiting(0)
    told.idle(topics.READINGS, 600, T0 + 690 * SECOND)
    assert not told.story

    told.idle(topics.READINGS, 10, T0 + 700 * SECOND)
    told.idle(topics.READINGS, 10, T0 + 710 * SECOND)
    assert told.story == [("quiet", "a", "triggered", 690.0)]

    told.die()
    told.give(lines(every("a", 10, 800, 801)))
    assert told.story[1:] == [("quiet", "a", "resolved", 800.0)]


def test_an_outage_is_nobodys_silence() -> None:
    """When all come back from one, only who stays away is silent, counted from then."""
    names = [f"d{place}" for place in range(8)]
    before = [every(name, 10, place, 1200) for place, name in enumerate(names)]
    after = [every(name, 10, 4 * HOUR + place, 5 * HOUR) for place, name in enumerate(names[:-1])]

    told = living(merged(*before, *after))

    assert told.story == [("quiet", "d7", "triggered", 4 * HOUR + 600.0)]
    assert told.alerts[0].actualValue == 4 * HOUR + 600.0 - 1197


def test_the_first_record_after_an_outage_may_be_of_another_type() -> None:
    """A pause is one of all device types."""
    names = [f"d{place}" for place in range(8)]
    before = [every(name, 10, place, 1200) for place, name in enumerate(names)]
    after = [every(name, 10, 4 * HOUR + place, 5 * HOUR) for place, name in enumerate(names)]

    assert not living(
        merged(*before, *after, every("pump", 60, 0, 1200, "pump"), every("pump", 60, 4 * HOUR - 1, 5 * HOUR, "pump"))
    ).story


@pytest.mark.parametrize("together", [True, False])
def test_a_slow_fleet_is_judged(together: bool) -> None:
    """Devices that speak once an hour, all at once or spread out: their ordinary pauses are no outage."""
    fleet = [every(f"d{place}", HOUR, place * (1 if together else 225), 24 * HOUR) for place in range(16)]
    fleet[3] = fleet[3][:10]

    told = living(merged(*fleet), rule("quiet", {"silent_for": 2 * HOUR}))

    assert told.story == [("quiet", "d3", "triggered", 11 * HOUR + 3 * (1 if together else 225.0))]


def test_what_is_behind_a_dead_gateway_is_silent() -> None:
    """Most of a fleet falls silent while few slow devices speak: that is taken for an outage once, not for ever."""
    fast = [every(f"fast{place}", 10, place, HOUR) for place in range(12)]
    slow = [every(f"slow{place}", HOUR, place * 700, 5 * HOUR) for place in range(6)]

    told = living(merged(*fast, *slow))

    silent = {device: second for _, device, _, second in told.story if device.startswith("fast")}
    assert len(silent) == 12
    assert set(silent.values()) == {HOUR + 700 + 600.0}


def test_the_priority_lane_brings_no_time() -> None:
    """Its records come in the ordinary lane, too: what waits there is no silence."""
    told = living(every("a", 10, 0, 100))
    told.give([(topics.READINGS_PRIORITY, *line[1:]) for line in lines(every("b", 10, 5000, 5001))])
    assert not told.story


def test_a_rule_that_comes_later_knows_who_was_silent() -> None:
    """If some absence rule covered the type all the time; without any, arrivals are forgotten."""
    log = merged(every("a", 10, 0, 100), every("b", 10, 0, 2000))
    changed = rule("other", {"silent_for": 300})

    told = Living(lambda: Alerts([rule("other", {"silent_for": 5000})])).give(lines(log))
    told._make = lambda: Alerts([changed])
    told.die()
    told.give(lines(every("b", 10, 2000, 2001)))
    assert told.story == [("other", "a", "triggered", 390.0)]

    told = Living(lambda: Alerts([])).give(lines(log))
    told._make = lambda: Alerts([changed])
    told.die()
    told.give(lines(every("b", 10, 2000, 2010)))
    assert not told.story


def test_who_stays_silent_is_alerted_about_after_the_cooldown() -> None:
    """The condition is met all the time; a person who resolved it is not contradicted."""
    log = merged(every("a", 10, 0, 11), every("a", 1, 700, 701), every("b", 10, 0, 3000))
    told = living(log, rule("quiet", {"silent_for": 600}, cooldown_period=1000))

    assert told.story == [
        ("quiet", "a", "triggered", 610.0),
        ("quiet", "a", "resolved", 700.0),
        ("quiet", "a", "triggered", 1610.0),
    ]
    assert told.alerts[2].metadata["lastSeen"] == T0 + 700 * SECOND
    assert told.alerts[2].actualValue == 910.0


def test_a_flapping_alert_ends_by_time_alone() -> None:
    """When the device has spoken for long enough, though no record of its own shows it."""
    flapping = {"triggers": 2, "within": 1000}
    log = merged(every("a", 50, 0, 151), every("a", 20, 170, 1300), every("b", 10, 0, 1300))
    told = living(log, rule("quiet", {"silent_for": 30}, flapping=flapping))

    assert told.story == [
        ("quiet", "a", "triggered", 30.0),
        ("quiet", "a", "resolved", 50.0),
        ("quiet", "a", "triggered", 80.0),
        ("quiet", "a", "resolved", 1150.0),
    ]
    assert told.alerts[-1].flaps.flapping


RULES = [
    rule("quiet", {"silent_for": 20}),
    rule("long", {"silent_for": 100}, cooldown_period=300, device_type="meter"),
    rule("late", {"silent_for": "learned", "intervals": 3, "least": 4}),
    rule("own", {"silent_for": 45.5}, device_ids=["a", "f"]),
]

#: What the oracle does not know of.
MORE = [
    rule("flaps", {"silent_for": 10}, flapping={"triggers": 2, "within": 60}, cooldown_period=25),
    rule("office", {"silent_for": 30}, schedule={"type": "custom", "stretches": [{"start": "22:15", "end": "22:18"}]}),
]


def spoken(seed: int) -> list[Spoke]:
    """A log with steady devices, gaps, outages and backlogs."""
    chance = random.Random(seed)
    log, now = [], 0
    away: set[str] = set()
    for _ in range(chance.choice([40, 150, 300])):
        now += chance.choice([0, 500, 1000, 3000]) if chance.random() > 0.03 else chance.choice([30_000, 400_000])
        if chance.random() < 0.05:
            away = set(chance.sample("abcdefgh", chance.choice([0, 1, 5])))
        device = chance.choice([each for each in "abcdefgh" if each not in away])
        time = now - chance.choice([0, 0, 0, 50_000])
        log.append((device, "pump" if device in "gh" else "meter", T0 + time, T0 + now - chance.choice([0, 0, 700])))
    return log


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.integers(1, 40), max_size=5))
def test_equals_the_oracle_through_batches_and_deaths(seed: int, sizes: list[int]) -> None:
    """Every silence is alerted about as the plain definition says, and once."""
    log, all_rules = spoken(seed), [*RULES, *MORE]
    written = lines(log)
    whole = Living(lambda: Alerts(all_rules)).give(written)

    told = [(rule_id, device, status, T0 + round(second * SECOND)) for rule_id, device, status, second in whole.story]
    assert sorted(each for each in told if each[0] not in ("flaps", "office")) == oracle(log, RULES)
    assert Living(lambda: Alerts(all_rules)).give(written, sizes).records == whole.records
    assert Living(lambda: Alerts(all_rules)).give(written, sizes or [7], deaths=True).records == whole.records
