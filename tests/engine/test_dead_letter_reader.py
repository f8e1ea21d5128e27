"""Finding dead letters again, on the embedded log in memory."""

from collections.abc import AsyncIterator

import pytest

from headrace.engine.dead_letter_reader import LetterId, Selection, fetch, find
from headrace.engine.dead_letters import dead_letter_records
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.schemas import topics


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """A log with an empty topic of dead letters."""
    log = EmbeddedLog(MEMORY, retention=1e9)
    await log.create_topics([TopicSpec(topics.DEAD_LETTERS, 2)])
    yield log
    await log.close()


async def refuse(
    log: EmbeddedLog, device: bytes, time_ms: int, *, reason: str = "too hot", agent: str = "ingest", partition: int = 0
) -> None:
    """Put one letter into a partition of the dead letters."""
    refused = Records([device], [b"payload"], [time_ms], {topics.MESSAGE_ID: b"m"})
    send = dead_letter_records(topics.RAW, 3, [7], refused, [reason], agent, counted=True)
    await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, partition), send.records)]))


async def found(log: EmbeddedLog, selection: Selection) -> list[str]:
    """Ids of the letters that fit."""
    return [str(letter.id) async for letter in find(log, selection)]


async def test_a_letter_says_where_it_comes_from_and_why(log: EmbeddedLog) -> None:
    """Everything but the payload is known without fetching it."""
    await refuse(log, b"cellar", 5000, reason="temperature is 999")

    (letter,) = [letter async for letter in find(log, Selection())]

    assert letter.id == LetterId(0, 0)
    assert (letter.time_ms, letter.device, letter.agent) == (5000, "cellar", "ingest")
    assert letter.origin == (topics.RAW, 3, 7)
    assert (letter.reason, letter.size) == ("temperature is 999", 7)


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), ["0-0", "0-1", "0-2", "1-0"]),
        (Selection(agent="rollup"), ["0-1"]),
        (Selection(reason="HOT"), ["0-0", "0-2"]),
        (Selection(device="attic"), ["1-0"]),
        (Selection(since_ms=2000), ["0-1", "1-0"]),
        (Selection(until_ms=2000), ["0-0", "0-2"]),
        (Selection(since_ms=1000, until_ms=2000, reason="hot"), ["0-0"]),
    ],
    ids=str,
)
async def test_a_letter_must_fit_all_that_is_given(log: EmbeddedLog, selection: Selection, ids: list[str]) -> None:
    """Append times need not ascend: a re-driven record that fails again is behind newer ones."""
    await refuse(log, b"cellar", 1000, reason="too hot")
    await refuse(log, b"cellar", 2000, reason="no time", agent="rollup")
    await refuse(log, b"cellar", 500, reason="hot, really")
    await refuse(log, b"attic", 3000, reason="no time", partition=1)

    assert await found(log, selection) == ids


async def test_records_of_somebody_else_are_letters_without_origin(log: EmbeddedLog) -> None:
    """Whatever lies in the topic is shown, and does not stop the listing."""
    stranger = Records([None], [None], [1], {"dlq-offset": b"\xff", "dlq-reason": b"\xff"})
    await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, 0), stranger)]))

    (letter,) = [letter async for letter in find(log, Selection())]

    assert letter.origin == ("", -1, -1)
    assert letter.reason == "\\xff"
    assert letter.size == 0


async def test_fetch_gives_the_record_as_it_is(log: EmbeddedLog) -> None:
    """By id, payload and headers included."""
    await refuse(log, b"cellar", 1)
    await refuse(log, b"attic", 2, partition=1)

    records = await fetch(log, [LetterId(1, 0), LetterId(0, 0)])

    assert records[LetterId(1, 0)].key == b"attic"
    assert records[LetterId(0, 0)].value == b"payload"
    assert records[LetterId(0, 0)].headers[topics.MESSAGE_ID] == b"m"


async def test_every_id_that_is_not_there_is_named(log: EmbeddedLog) -> None:
    """One message for all of them."""
    await refuse(log, b"cellar", 1)

    with pytest.raises(ConfigError) as raised:
        await fetch(log, [LetterId(0, 0), LetterId(0, 1), LetterId(9, 0)])

    assert len(raised.value.mistakes) == 2
    assert "0-1" in raised.value.mistakes[0]
    assert "9-0" in raised.value.mistakes[1]


async def test_letters_that_retention_dropped_are_gone() -> None:
    """A partition of which nothing is left is empty, not endless."""
    log = EmbeddedLog(MEMORY, retention=1)
    await log.create_topics([TopicSpec(topics.DEAD_LETTERS, 1)])
    await refuse(log, b"cellar", 1)
    await refuse(log, b"cellar", 1_000_000)
    assert await log.apply_retention() == 1

    assert await found(log, Selection()) == ["0-1"]
    with pytest.raises(ConfigError, match="0-0"):
        await fetch(log, [LetterId(0, 0)])
    await log.close()


async def test_without_dead_letters_somebody_is_told() -> None:
    """A log that no worker has run on has no such topic."""
    log = EmbeddedLog(MEMORY)

    with pytest.raises(ConfigError, match="no worker"):
        await found(log, Selection())
    await log.close()


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-1", "1-2-3", "1 - 2", "٣-1"])
def test_what_is_no_id_is_refused(text: str) -> None:
    """With how to find one."""
    with pytest.raises(ConfigError, match="dlq list"):
        LetterId.parse(text)
