"""Sends commands about alerts, and waits for what becomes of them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click
import orjson

from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError
from headrace.engine.log import Append, Log, Reader, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.log_time import log_now_ms
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert_command import AlertCommand

#: Seconds without an answer after which the user hears that it takes long.
SLOW = 2.0
#: Seconds between two looks, at most; records of one.
LOOK, PIECE = 0.5, 1_000


class NoAnswerError(HeadraceError):
    """Nobody answered a command in time."""


async def send_commands(
    log: Log, commands: Sequence[AlertCommand], clock: Clock, timeout: float
) -> dict[str, dict[str, Any]]:
    """Append commands in one step, and wait for an event about each; the events by command id.

    Args:
        timeout: seconds; with 0 nobody waits.
    Raises:
        NoAnswerError: no worker carried out all of them in time; they stay in the log.
        LogError: nothing was sent.
    """
    partitions = log.partitions(topics.READINGS) if await _has(log, topics.READINGS) else TopicSpec("").partitions
    await log.create_topics([TopicSpec(name, partitions) for name in (topics.ALERT_COMMANDS, topics.ALERTS)])
    positions = await log.end_offsets(topics.ALERTS)
    partitioner = Partitioner(log.partitions(topics.ALERT_COMMANDS))
    keys = [command.deviceId.encode() for command in commands]
    values = [command.model_dump_json(exclude_none=True).encode() for command in commands]
    now = await log_now_ms(log, clock)
    appends = [
        Append(
            TopicPartition(topics.ALERT_COMMANDS, number),
            Records([keys[row] for row in rows], [values[row] for row in rows], [now] * len(rows)),
        )
        for number, rows in partitioner.split(keys).items()
    ]
    await log.commit(Transaction(appends))
    if not timeout:
        return {}
    wanted = {command.commandId for command in commands}
    found: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(timeout):
            await _answers(log, positions, wanted, found, clock)
    except TimeoutError:
        missing = len(wanted) - len(found)
        raise NoAnswerError(
            f"no worker has answered {missing:,} of {len(wanted):,} commands after {timeout:g} s. They are in the log, "
            "and are carried out when one runs; start one (headrace worker), or look later: headrace alerts show"
        ) from None
    return found


async def _answers(
    log: Log, positions: dict[TopicPartition, int], wanted: set[str], found: dict[str, dict[str, Any]], clock: Clock
) -> None:
    began, told = clock.monotonic(), False
    async with reading(log) as reader:
        while wanted - found.keys():
            for event in await next_events(reader, positions):
                if event.get("commandid") in wanted:
                    found[event["commandid"]] = event
            if not told and clock.monotonic() - began > SLOW:
                click.echo("waiting for a worker to answer", err=True)
                told = True


async def next_events(reader: Reader, positions: dict[TopicPartition, int]) -> list[dict[str, Any]]:
    """Some events of `alerts.v1` from these positions on, which move along; none if none came for `LOOK` seconds."""
    await reader.wait(positions, LOOK)
    found: list[dict[str, Any]] = []
    for target, position in list(positions.items()):
        fetched = await reader.read(target, position, PIECE)
        if fetched is not None:
            positions[target] = fetched.next_offset
            found += map(_event_of, fetched.records.values)
    return found


def _event_of(value: bytes | None) -> dict[str, Any]:
    """A CloudEvent, or nothing where somebody has written something else."""
    try:
        event = orjson.loads(value or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def change_of(event: Mapping[str, Any]) -> str:
    """What happened: triggered, acknowledged, ..., refused."""
    return str(event.get("type", "")).rpartition(".")[2]


async def _has(log: Log, topic: str) -> bool:
    return topic in {spec.name for spec in await log.topics()}
