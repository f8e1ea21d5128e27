"""What `headrace dlq list` and `show` print about dead letters, for people and as JSON."""

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.engine.dead_letter_reader import DeadLetter, LetterId, text_of
from headrace.engine.records import Record
from headrace.engine.redrive import Note
from headrace.schemas.text import shortened

#: Bytes in a line of a hex dump.
DUMP_WIDTH = 16
#: What differs between reasons that mean the same: quoted texts, times, numbers.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBER = re.compile(r"(?<![\w-])-?\d[\d.:TZ+e-]*")


@dataclass(slots=True)
class Group:
    """Dead letters of one agent with the same reason but for names and numbers; whose, the newest time, an example."""

    agent: str
    reason: str
    count: int
    newest_ms: int
    example: str
    devices: set[bytes | None] = field(default_factory=set)


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Letters by agent and reason, the most first."""
    groups: dict[tuple[str, str], Group] = {}
    for letter in letters:
        pattern = _NUMBER.sub("…", _QUOTED.sub("'…'", letter.reason))
        group = groups.setdefault((letter.agent, pattern), Group(letter.agent, pattern, 0, letter.time_ms, ""))
        group.count += 1
        group.devices.add(letter.key)
        if letter.time_ms >= group.newest_ms:
            group.newest_ms, group.example = letter.time_ms, str(letter.id)
    return sorted(groups.values(), key=lambda group: (-group.count, group.agent, group.reason))


def group_json(group: Group) -> dict[str, Any]:
    """What a summary says of a group, as JSON."""
    return {
        "agent": group.agent,
        "reason": group.reason,
        "count": group.count,
        "devices": len(group.devices),
        "newest": iso_ms(group.newest_ms),
        "example": group.example,
    }


def show_groups(groups: Sequence[Group]) -> None:
    """Print a summary."""
    table = listing("count", "devices", "agent", "reason", "newest", "for example", right=("count", "devices"))
    for group in groups:
        row = (printable(group.agent), printable(group.reason), iso_ms(group.newest_ms), group.example)
        table.add_row(f"{group.count:,}", f"{len(group.devices):,}", *map(Text, row))
    show_listing(table)


def show_letters(letters: Iterable[DeadLetter], notes: Mapping[LetterId, Note], *, with_state: bool) -> None:
    """Print a table of letters."""
    state = ("replayed",) if with_state else ()
    table = listing("id", "time", "agent", "device", "from", *state, "reason")
    for letter in letters:
        row = [str(letter.id), iso_ms(letter.time_ms), letter.agent, shortened(letter.device), where(letter)]
        if with_state:
            row.append(_replayed(notes.get(letter.id)))
        table.add_row(*(Text(printable(cell)) for cell in (*row, letter.reason)))
    show_listing(table)


def letter_json(letter: DeadLetter, note: Note | None) -> dict[str, Any]:
    """What a listing says of a letter, as JSON."""
    return {
        "id": str(letter.id),
        "time": iso_ms(letter.time_ms),
        "agent": letter.agent,
        "device": letter.device,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "reason": letter.reason,
        "bytes": letter.size,
        "replayed": None if note is None else _note_json(note),
    }


def show_letter(letter: DeadLetter, record: Record, note: Note | None) -> None:
    """Print everything about one letter."""
    table = listing("", "", header=False)
    rows = {
        "id": str(letter.id),
        "time": iso_ms(letter.time_ms),
        "agent": letter.agent,
        "reason": letter.reason,
        "from": where(letter),
        "device": letter.device,
        "replayed": _replayed(note),
        **{f"header {name}": text_of(value) for name, value in sorted(record.headers.items())},
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    show_listing(table)
    if record.value is None:
        click.echo("\nno payload")
        return
    click.echo(f"\npayload, {letter.size:,} bytes")
    for line in payload_lines(record.value):
        click.echo(line)


def record_json(letter: DeadLetter, record: Record, note: Note | None) -> dict[str, Any]:
    """Everything about one letter as JSON; bytes in base64, and as text where they are UTF-8."""
    return {
        **letter_json(letter, note),
        "headers": {name: _bytes_json(value) for name, value in record.headers.items()},
        "key": _bytes_json(record.key),
        "payload": _bytes_json(record.value),
    }


def payload_lines(payload: bytes) -> Iterator[str]:
    """A payload for people: JSON indented, anything else as a hex dump."""
    try:
        indented = orjson.dumps(orjson.loads(payload), option=orjson.OPT_INDENT_2)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        yield from _dump(payload)
        return
    for line in indented.decode().split("\n"):
        yield printable(line)


def where(letter: DeadLetter) -> str:
    """Where the refused record is: `topic/partition@offset`."""
    topic, partition, offset = letter.origin
    return f"{topic}/{partition}@{offset}" if topic else "?"


def _dump(payload: bytes) -> Iterator[str]:
    for start in range(0, len(payload), DUMP_WIDTH):
        part = payload[start : start + DUMP_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):<{DUMP_WIDTH * 3}} {text}"


def _replayed(note: Note | None) -> str:
    if note is None:
        return "no"
    times = f", {note.times} times" if note.times > 1 else ""
    return f"{iso_ms(note.at_ms)} to {note.topic}/{note.partition}{times}"


def _note_json(note: Note) -> dict[str, Any]:
    return {"time": iso_ms(note.at_ms), "times": note.times, "topic": note.topic, "partition": note.partition}


def _bytes_json(value: bytes | None) -> dict[str, Any] | None:
    if value is None:
        return None
    found: dict[str, Any] = {"base64": base64.b64encode(value).decode()}
    with contextlib.suppress(UnicodeDecodeError):
        found["text"] = value.decode()
    return found
