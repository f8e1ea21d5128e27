"""Rate expressions, and the ticks of one."""

import pytest
from pydantic import ValidationError

from headrace.connectors.mqtt.schedule import Ticks, interval_ms
from headrace.connectors.mqtt.settings import MqttSettings
from headrace.engine.clock import SteppedClock

FIVE_MINUTES_MS = 300_000
START_MS = 1_750_000_000_123


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(1 hour)", 3_600), ("rate(2 days)", 172_800)],
)
def test_rates(schedule: str, seconds: int) -> None:
    """Minutes, hours and days, as EventBridge has them."""
    assert interval_ms(schedule) == seconds * 1000


@pytest.mark.parametrize(
    "schedule",
    ["5 minutes", "rate(5 minute)", "rate(1 minutes)", "rate(0 minutes)", "rate(5 seconds)", "cron(0/5 * * * ? *)", ""],
)
def test_what_is_no_rate_is_refused(schedule: str) -> None:
    """With one that is."""
    with pytest.raises(ValidationError, match=r"rate\(5 minutes\)"):
        MqttSettings(schedule=schedule)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"qos": 0}, "at QoS 0 a broker keeps nothing"),
        ({"session_expiry": 599}, "make it 600 or more; else the broker forgets the session"),
        ({"schedule_timeout": 301}, "a run would pass the next tick"),
        ({"share": "plant"}, "a group of which nobody is connected"),
    ],
)
def test_what_does_not_go_with_a_schedule_is_refused(more: dict[str, object], why: str) -> None:
    """It says why."""
    with pytest.raises(ValidationError, match=why):
        MqttSettings.model_validate({"schedule": "rate(5 minutes)", **more})


async def test_ticks_do_not_drift() -> None:
    """Whatever is done between them takes nothing away from the next, and adds nothing."""
    clock = SteppedClock(START_MS)
    ticks = Ticks(FIVE_MINUTES_MS, clock)
    seen = []
    for busy_ms in (0, 1, 7_777, 299_999, 60_000):
        clock.advance(busy_ms)
        assert await ticks.wait_next() == 0
        seen.append(clock.now_ms() - START_MS)

    assert seen == [FIVE_MINUTES_MS * number for number in range(1, 6)]


async def test_ticks_that_have_passed_are_left_out() -> None:
    """After a long run the next tick is one to come, on the same grid, and the passed ones are counted."""
    clock = SteppedClock(START_MS)
    ticks = Ticks(FIVE_MINUTES_MS, clock)
    clock.advance(2 * FIVE_MINUTES_MS + 1)

    assert await ticks.wait_next() == 2
    assert clock.now_ms() == START_MS + 3 * FIVE_MINUTES_MS


async def test_a_clock_that_is_set_back_delays_no_more_than_an_interval() -> None:
    """Ticks are counted anew from there."""
    clock = SteppedClock(START_MS)
    ticks = Ticks(FIVE_MINUTES_MS, clock)
    clock.advance(-86_400_000)
    before_ms = clock.now_ms()

    assert await ticks.wait_next() == 0
    assert clock.now_ms() == before_ms + FIVE_MINUTES_MS
