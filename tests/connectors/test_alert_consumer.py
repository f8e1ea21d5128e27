"""Reading alerts from outside, on an embedded log on which somebody writes at the same time."""

import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import zip_longest
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from headrace.connectors.topic_consumer import TopicConsumer
from headrace.consume import Alert, ConfigError, LogInUse, StateChange, read_alerts, read_states
from headrace.engine.clock import SteppedClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.schemas import topics
from tests.connectors.alert_records import ALERT, SPECS, TRIGGERED, document, event, send, send_events, set_state

#: Seconds that anything may take.
PATIENCE = 60.0


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    """The log as the worker has it."""
    log = EmbeddedLog(tmp_path)
    await log.create_topics(SPECS)
    yield log
    await log.close()


async def ids(folder: Path, last: str, group: str = "pager") -> list[str]:
    """Ids of the events up to `last`, whose body is not finished."""
    found = []
    async with asyncio.timeout(PATIENCE), read_alerts(f"embedded://{folder}", group=group) as alerts:
        async for each in alerts:
            found.append(each.id)
            if each.id == last:
                break
    return found


async def test_events_are_typed_and_come_as_they_are_written(log: EmbeddedLog, tmp_path: Path) -> None:
    """Those that were there, then one that is written while the reader waits."""
    await send(log, 0, document(TRIGGERED))
    async with asyncio.timeout(PATIENCE), read_alerts(f"embedded://{tmp_path}", group="pager") as alerts:
        events = aiter(alerts)
        first = await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await send(log, 1, document(event(1)))
        second = await waiting

    assert first == TRIGGERED
    assert isinstance(second.data, Alert)
    assert second.data.alertId == "alert-1"


async def test_an_event_whose_body_was_left_comes_again(log: EmbeddedLog, tmp_path: Path) -> None:
    """Those before it do not."""
    await send(log, 0, *(document(event(number)) for number in range(5)))

    assert await ids(tmp_path, "alert-2/1") == ["alert-0/1", "alert-1/1", "alert-2/1"]
    assert await ids(tmp_path, "alert-4/1") == ["alert-2/1", "alert-3/1", "alert-4/1"]
    assert await ids(tmp_path, "alert-0/1", group="another") == ["alert-0/1"]


async def test_an_event_comes_again_after_an_error(log: EmbeddedLog, tmp_path: Path) -> None:
    """In the body of the loop, without `async with`: once the generator is collected, its log is closed."""
    await send(log, 0, *(document(event(number)) for number in range(2)))

    async def fail() -> None:
        async for each in read_alerts(f"embedded://{tmp_path}", group="pager"):
            if each.id == "alert-1/1":
                raise ValueError("the pager is broken")

    with pytest.raises(ValueError, match="pager is broken"):
        await fail()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await ids(tmp_path, "alert-1/1") == ["alert-1/1"]
                break
            except LogInUse:
                await asyncio.sleep(0)


async def test_positions_are_committed_while_nothing_comes(log: EmbeddedLog, tmp_path: Path) -> None:
    """A reader that is killed while it waits has nothing to read again."""
    await send_events(log, range(4))

    async def read() -> None:
        async for _ in read_alerts(f"embedded://{tmp_path}", group="pager"):
            pass

    reading = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE):
        while sum((await log.positions("pager", topics.ALERTS)).values()) < 4:
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait([reading])


async def test_positions_are_committed_while_there_is_more(log: EmbeddedLog) -> None:
    """Every second, those behind what is finished."""
    await send(log, 0, *(document(event(number)) for number in range(6)))
    clock, committed = SteppedClock(), list[int]()

    async with TopicConsumer(log, topics.ALERTS, "pager", clock) as consumer:
        records = consumer.records()
        for seconds in (0.4, 0.4, 0.4, 0.4, 2.0):
            await anext(records)
            clock.advance(round(seconds * 1000))
            committed.append(sum((await log.positions("pager", topics.ALERTS)).values()))
        await records.aclose()

    assert committed == [0, 0, 0, 3, 3]
    assert sum((await log.positions("pager", topics.ALERTS)).values()) == 4


@hypothesis_settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    stops=st.lists(st.integers(1, 8), min_size=1, max_size=12),
)
def test_no_event_is_missed_wherever_a_reader_stops(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], stops: list[int]
) -> None:
    """Each comes, in the order of its device, and again only if its body was left."""

    async def run() -> None:
        folder = tmp_path_factory.mktemp("log")
        log = EmbeddedLog(folder)
        await log.create_topics(SPECS)
        total, seen, unfinished = 0, list[str](), set[str]()
        for size, stop in [*zip_longest(sizes, stops, fillvalue=0), (0, 100)]:
            new = range(total, total + size)
            await send_events(log, new)
            unfinished |= {event(number).id for number in new}
            total += size
            async with asyncio.timeout(PATIENCE), read_alerts(f"embedded://{folder}", group="g") as alerts:
                events, in_hand = aiter(alerts), ""
                for _ in range(min(stop, len(unfinished))):
                    found = (await anext(events)).id
                    unfinished.discard(in_hand)
                    in_hand = found
                    assert found in unfinished
                    seen += [found] if found not in seen else []
        await log.close()
        assert len(seen) == total
        for partition in (0, 1):
            mine = [event(number).id for number in range(partition, total, 2)]
            assert [each for each in seen if each in mine] == mine

    asyncio.run(run())


async def test_a_killed_reader_misses_nothing(log: EmbeddedLog, tmp_path: Path) -> None:
    """`kill -9` in the body of the loop: the next one goes on where a position was committed."""
    expected = [event(number).id for number in range(300)]
    await send(log, 0, *(document(event(number)) for number in range(300)))
    program = f"""
import asyncio
from headrace.consume import read_alerts

async def main():
    async for event in read_alerts("embedded://{tmp_path}", group="pager"):
        print(event.id, flush=True)
        if event.id == "alert-130/1":
            await asyncio.Event().wait()

asyncio.run(main())
"""

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        before = [(await process.stdout.readline()).decode().strip() for _ in range(131)]
    process.kill()
    await process.communicate()
    after = await ids(tmp_path, expected[-1])

    assert before == expected[:131]
    assert after == expected[-len(after) :]
    assert len(after) >= 170, "the one in hand comes again"


async def test_fields_of_a_newer_version_are_left_out(log: EmbeddedLog, tmp_path: Path) -> None:
    """And what is no event is passed over, with a line in the log."""
    newer = orjson.loads(document(event(7)))
    newer["traceparent"], newer["data"]["mood"], newer["data"]["flaps"]["since"] = "00-1", "grim", 1
    await send(log, 0, b"not JSON", b'{"type": "io.headrace.alert.reborn"}', orjson.dumps(newer))

    with capture_logs() as logged:
        assert await ids(tmp_path, "alert-7/1") == ["alert-7/1"]

    assert [entry["event"] for entry in logged] == ["alert_unreadable"] * 2


async def test_states_are_those_of_now_then_every_change(log: EmbeddedLog, tmp_path: Path) -> None:
    """Each alert once at first; then as they change, and go."""
    await set_state(log, "a", "triggered")
    await set_state(log, "a", "acknowledged")
    await set_state(log, "bb", "triggered")
    await set_state(log, "gone", "resolved")
    await set_state(log, "gone", None)
    url = f"embedded://{tmp_path}"

    now = {each.alert_id: each.alert async for each in read_states(url, follow=False)}
    async with asyncio.timeout(PATIENCE), read_states(url) as states:
        changes = aiter(states)
        first = [await anext(changes) for _ in range(2)]
        await set_state(log, "ccc", "triggered")
        third = await anext(changes)
        await set_state(log, "a", None)
        fourth = await anext(changes)

    assert {name: alert and alert.status for name, alert in now.items()} == {"a": "acknowledged", "bb": "triggered"}
    assert now["bb"] == ALERT.model_copy(update={"alertId": "bb"})
    assert {each.alert_id for each in first} == {"a", "bb"}
    assert third.alert is not None
    assert third.alert.alertId == "ccc"
    assert fourth == StateChange("a", None)


async def test_an_embedded_log_has_one_reader_per_group(log: EmbeddedLog, tmp_path: Path) -> None:
    """The second one is told who has it."""
    await send_events(log, range(2))

    async with asyncio.timeout(PATIENCE), read_alerts(f"embedded://{tmp_path}", group="pager") as alerts:
        async for _ in alerts:
            with pytest.raises(LogInUse, match=r"this process reads .* 'pager' already"):
                await ids(tmp_path, "alert-0/1")
            assert await ids(tmp_path, "alert-0/1", group="other")
            break


@pytest.mark.parametrize(
    ("url", "group", "said"),
    [
        ("embedded://{folder}", "head race", "letters, digits"),
        ("embedded://{folder}", "headrace", "headrace's own"),
        ("embedded://{folder}", "timescale", "headrace's own"),
        ("embedded://{folder}/nowhere", "pager", "holds no log"),
        ("embedded://", "pager", "must be kafka"),
        ("localhost:9092", "pager", "must be kafka"),
        ("kafka://127.0.0.1:1", "pager", "no Kafka at 127.0.0.1:1"),
    ],
)
async def test_mistakes_are_said(log: EmbeddedLog, tmp_path: Path, url: str, group: str, said: str) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=said):
        async for _ in read_alerts(url.format(folder=tmp_path), group=group):
            pass


async def test_a_log_without_alerts_is_said(tmp_path: Path) -> None:
    """A worker makes the topics."""
    await EmbeddedLog(tmp_path).close()

    with pytest.raises(ConfigError, match="a headrace worker makes it"):
        async for _ in read_states(f"embedded://{tmp_path}"):
            pass
