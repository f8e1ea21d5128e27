"""What time it is in a log: append times are this machine's, or those of a demo or a replay."""

from headrace.engine.clock import Clock, SystemClock
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec, Transaction
from headrace.schemas import topics

#: Compacted; its one key is there while append times are virtual.
LOG_TIME = "headrace.time"
_TARGET, _VIRTUAL = TopicPartition(LOG_TIME, 0), b"virtual"


async def note_clock(log: Log, clock: Clock) -> None:
    """Note whose time it is, before something is appended with the times of `clock`; by default this machine's.

    Raises:
        LogError: nothing was noted.
    """
    virtual = type(clock) is not SystemClock  # the others derive from it
    if virtual == await is_virtual(log):
        return
    await log.create_topics([TopicSpec(LOG_TIME, 1, compacted=True)])
    await log.commit(Transaction(changes=[Changes(_TARGET, {_VIRTUAL: b"1" if virtual else None})]))


async def is_virtual(log: Log) -> bool:
    """Whether append times are those of a demo, which runs faster, or of the data of a replay."""
    if LOG_TIME not in {spec.name for spec in await log.topics()}:
        return False
    return any([key == _VIRTUAL async for entries in log.restore(_TARGET) for key, _ in entries])


async def log_now_ms(log: Log, clock: Clock) -> int:
    """What time it is, as append times have it, ms since 1970 UTC; on virtual time, to the minute.

    Args:
        clock: real time.
    """
    now = clock.now_ms()
    if not await is_virtual(log):
        return now
    minutes = [tally.minute_ms for tally in await log.tallies(topics.RAW)]
    return min([now, *([max(minutes) + MINUTE_MS] if minutes else [])])
