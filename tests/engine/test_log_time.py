"""What time it is in a log, and from when a change applies."""

from pathlib import Path

from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import MINUTE_MS, Intake
from headrace.engine.log import Log
from headrace.engine.log_time import is_virtual, log_now_ms, note_clock
from headrace.tables.live_registry import DELAY_MS, LiveRegistry

#: Of the newest record; a month ago, say.
THEN = 1_750_000_020_000
NOW = THEN + 30 * 86_400_000


async def log_with_a_record(folder: Path) -> Log:
    log = EmbeddedLog(folder)
    await log.create_topics(Intake.topic_specs(1))
    await Intake(log, ManualClock(THEN)).append(
        [b"d"], [b"{}"], device_type="environmental", profile="test", sources=b"test"
    )
    return log


def registry(log: Log) -> LiveRegistry[str]:
    return LiveRegistry(log, "things", str.encode, ManualClock(NOW))


async def test_on_a_quiet_log_it_is_as_late_as_here(tmp_path: Path) -> None:
    """However long ago the last record came: a change applies to what comes a second from now."""
    log = await log_with_a_record(tmp_path)

    now, applies = await log_now_ms(log, ManualClock(NOW)), await registry(log).applies_at()

    await log.close()
    assert (now, applies) == (NOW, NOW + DELAY_MS)


async def test_on_the_log_of_a_demo_it_is_as_late_as_its_newest_record(tmp_path: Path) -> None:
    """To the minute; a change applies a minute later."""
    log = await log_with_a_record(tmp_path)
    await note_clock(log, ManualClock(THEN))

    now, applies = await log_now_ms(log, ManualClock(NOW)), await registry(log).applies_at()

    await log.close()
    minute = THEN // MINUTE_MS * MINUTE_MS
    assert (now, applies) == (minute + MINUTE_MS, minute + 2 * MINUTE_MS)


async def test_a_worker_makes_it_this_machine_s_again(tmp_path: Path) -> None:
    """Who appends last says whose time it is; others who open the folder see it."""
    log = await log_with_a_record(tmp_path)
    await note_clock(log, ManualClock(THEN))
    other = EmbeddedLog(tmp_path)
    assert await is_virtual(other)

    await note_clock(log, SystemClock())

    assert not await is_virtual(other)
    await other.close()
    await log.close()
