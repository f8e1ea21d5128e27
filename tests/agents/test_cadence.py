"""Devices that are late by their own interval."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.cadence import Cadence
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, drive, pass_time, reading_records, readings_log
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.schemas.readings import Readings

T0 = 1_700_000_000_000
SECOND, MINUTE = 1000, 60_000


def log(rows: list[tuple[str, int, int]]) -> Records:
    """Readings by device, event time and append time, both in ms from T0."""
    readings = Readings(
        "meter",
        np.arange(len(rows)),
        [device for device, _, _ in rows],
        np.array([T0 + time for _, time, _ in rows], dtype=np.int64),
        [f"message-{place}" for place in range(len(rows))],
        {"power": np.ones(len(rows))},
    )
    return reading_records(readings, [T0 + appended for _, _, appended in rows])


def every(device: str, interval: int, first: int, last: int) -> list[tuple[str, int, int]]:
    """A device that sends at once what it reads."""
    return [(device, time, time) for time in range(first, last, interval)]


def merged(*parts: list[tuple[str, int, int]]) -> Records:
    return log(sorted((row for part in parts for row in part), key=lambda row: (row[2], row[0])))


def late(driven: Driven) -> list[Anomaly]:
    return [Anomaly.model_validate_json(record.value or b"") for record in driven.sent.get(topics.ANOMALIES, [])]


def test_a_device_is_late_after_five_of_its_own_intervals() -> None:
    """Once, at the first record after that; a slower device is not, however long it is silent."""
    records = merged(
        every("fast", 10 * SECOND, 0, 20 * MINUTE),
        every("slow", 5 * MINUTE, 7, 200 * MINUTE),
        every("other", 10 * SECOND, 3, 60 * MINUTE),
    )

    (anomaly, *others) = late(drive(Cadence(), records))

    assert (anomaly.device_id, anomaly.metric, anomaly.detector) == ("fast", "cadence", "cadence")
    assert anomaly.time == T0 + 20 * MINUTE - 10 * SECOND
    assert anomaly.expected == 10.0
    assert 60.0 < anomaly.value <= 70.0  # `least` is a minute
    assert anomaly.text == f"fast is silent for {anomaly.value:.3g} seconds; usual are 10 seconds"
    assert [each.device_id for each in others] == ["other"]


def test_who_comes_back_can_be_late_again() -> None:
    """Each silence is said once."""
    records = merged(
        every("a", 10 * SECOND, 0, 10 * MINUTE),
        every("a", 10 * SECOND, 30 * MINUTE, 40 * MINUTE),
        every("b", 10 * SECOND, 3, 60 * MINUTE),
    )
    assert [each.device_id for each in late(drive(Cadence(), records))] == ["a", "a"]


def test_a_backlog_is_no_silence_and_no_excuse() -> None:
    """A device that uploads an hour of minutes at once is judged by its uploads."""
    uploads = [
        ("a", (hour * 60 + minute) * MINUTE, (hour + 1) * 60 * MINUTE + minute)
        for hour in range(30)
        for minute in range(60)
    ]
    quiet = merged(uploads, every("b", MINUTE, 3, 31 * 60 * MINUTE))
    silent = merged(uploads, every("b", MINUTE, 3, 40 * 60 * MINUTE))

    assert not late(drive(Cadence(), quiet))
    assert [each.device_id for each in late(drive(Cadence(), silent))] == ["a"]


def test_an_outage_of_everybody_is_nobodys_silence() -> None:
    """After hours without a record, as when headrace was stopped, nobody is reported but who stays away."""
    devices = "abcdefgh"
    before = [every(device, 10 * SECOND, place, 20 * MINUTE) for place, device in enumerate(devices)]
    after = [
        every(device, 10 * SECOND, 300 * MINUTE + place, 320 * MINUTE) for place, device in enumerate(devices[:-1])
    ]

    anomalies = late(drive(Cadence(), merged(*before, *after)))

    assert [each.device_id for each in anomalies] == ["h"]
    assert anomalies[0].value < 100


def test_time_alone_shows_who_is_silent() -> None:
    """When nothing comes at all while headrace runs, idle time does it, once."""
    cadence, driven = Cadence(), Driven({}, [])
    drive(cadence, merged(every("a", 10 * SECOND, 0, 10 * MINUTE)))
    assert cadence.is_waiting(0)

    pass_time(cadence, driven, 50, T0 + 11 * MINUTE)
    assert not driven.sent
    pass_time(cadence, driven, 50, T0 + 12 * MINUTE)

    (anomaly,) = late(driven)
    assert (anomaly.device_id, anomaly.value, anomaly.message_id) == ("a", 100.0, None)
    assert driven.sent[topics.ANOMALIES][0].timestamp == T0 + 12 * MINUTE
    assert not cadence.is_waiting(0)


def test_nobody_is_late_before_the_warm_up() -> None:
    """With fewer gaps than asked for nothing is known."""
    records = merged(every("a", 10 * SECOND, 0, 90 * SECOND), every("b", 10 * SECOND, 3, 60 * MINUTE))
    assert not late(drive(Cadence(), records))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 100), max_size=8))
def test_batches_and_restarts_change_nothing(seed: int, sizes: list[int]) -> None:
    """The same log gives the same bytes, with gaps, outages, backlogs and several device types."""
    rng = random.Random(seed)
    parts, append = [], 0
    for place in range(300):
        append += rng.choice([0, SECOND, 5 * SECOND, 20 * SECOND]) if rng.random() > 0.02 else 600 * SECOND
        device = rng.choice("aaabbbcccdef") if place < 200 else rng.choice("bcdef")
        event = append - rng.choice([0, 0, 0, 50 * SECOND])
        parts.append((device, "meter" if device in "abc" else "tilt", T0 + event, {"x": 1.0}))
    log = readings_log(parts)
    log.timestamps = sorted(time for _, _, time, _ in parts)

    def fresh() -> Cadence:
        return Cadence(times=2, least=5, warm_up=3)

    assert drive(fresh(), log, batch_sizes=sizes, restart=fresh).sent == drive(fresh(), log).sent
