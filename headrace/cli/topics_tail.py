"""`headrace topics tail`: the newest records of a topic."""

from collections.abc import Sequence
from typing import NamedTuple

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Record

#: Offsets without a record are few, but on Kafka there are some: look so many times as far back, if need be.
FURTHER = 8


class Newest(NamedTuple):
    """A record and where it is."""

    time_ms: int
    partition: int
    offset: int
    record: Record


async def newest_records(log: Log, topic: str, limit: int) -> list[Newest]:
    """The `limit` newest records of a topic by append time, oldest first.

    Raises:
        ConfigError: the topic is compacted, and the log does not keep its order.
    """
    specs = {spec.name: spec for spec in await log.topics()}
    if specs[topic].compacted:
        raise ConfigError(f"{topic} is compacted: `headrace tables` and `headrace devices` show what is in such topics")
    found: list[Newest] = []
    starts = await first_offsets(log, topic)
    async with reading(log) as reader:
        for target, end in (await log.end_offsets(topic)).items():
            back, here = limit, list[Newest]()
            while True:
                start, here = max(starts[target], end - back), []
                async for fetched in read_range(reader, target, start, end):
                    here += [
                        Newest(record.timestamp, target.partition, fetched.offset(place), record)
                        for place, record in enumerate(fetched.records)
                    ]
                if len(here) >= limit or start == starts[target]:
                    break
                back *= FURTHER
            found += here[-limit:]
    return sorted(found, key=lambda each: each[:3])[-limit:]


def show_records(found: Sequence[Newest], *, as_json: bool) -> None:
    """Print a line per record."""
    table = listing("append time", "partition", "offset", "key", "value", right=("partition", "offset"))
    for each in found:
        key, value = _text(each.record.key), _text(each.record.value)
        if as_json:
            place = {"time": iso_ms(each.time_ms), "partition": each.partition, "offset": each.offset}
            click.echo(orjson.dumps({**place, "key": key, "value": value}).decode())
        else:
            cells = (iso_ms(each.time_ms), str(each.partition), str(each.offset), key or "", value or "")
            table.add_row(*(Text(printable(cell)) for cell in cells))
    if not as_json:
        show_listing(table)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
