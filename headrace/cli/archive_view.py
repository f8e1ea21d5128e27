"""What `headrace archive` and `headrace retention` print, for people and as JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.connectors.archive.due import Due, totals
from headrace.connectors.archive.parts import Part

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def show_due(found: Sequence[Due]) -> None:
    """A line per policy, device type, organisation and day, and the total."""
    if not found:
        click.echo("nothing would be deleted")
        return
    columns = ("WHAT", "ORGANISATION", "DAY", "POLICY", "DAYS", "ROWS", "SIZE", "OLDEST", "NEWEST")
    table = listing(*columns, right=("DAYS", "ROWS", "SIZE"))
    for each in found:
        about = "~" if each.estimated else ""
        table.add_row(
            Text(printable(each.dataset.label)),
            Text(printable(each.organisation or "-")),
            each.day.isoformat(),
            Text(printable(each.policy)),
            str(each.days),
            f"{about}{each.rows:,}",
            about + size(each.bytes),
            _time(each.oldest),
            _time(each.newest),
        )
    show_listing(table)
    total = totals(found)
    about = "about " if total["estimated"] else ""
    click.echo(
        f"{about}{total['rows']:,} rows, {size(total['bytes'])}, would go to the archive, be read back, and be deleted"
    )


def due_json(found: Sequence[Due]) -> dict[str, Any]:
    """Likewise, as JSON."""
    rows = [
        {
            "dataset": each.dataset.name,
            "device_type": each.dataset.device_type,
            "organisation": each.organisation,
            "day": each.day.isoformat(),
            "policy": each.policy,
            "days": each.days,
            "rows": each.rows,
            "bytes": each.bytes,
            "oldest": each.oldest,
            "newest": each.newest,
            "estimated": each.estimated,
        }
        for each in found
    ]
    return {"due": rows, "total": totals(found)}


def show_parts(parts: Sequence[Part], as_json: bool) -> None:
    """A line per part."""
    if as_json:
        for part in parts:
            click.echo(orjson.dumps(_part_json(part)).decode())
        return
    table = listing("WHAT", "ORGANISATION", "DAY", "ROWS", "SIZE", "STATE", "OBJECT", right=("ROWS", "SIZE"))
    for part in parts:
        dataset, device_type, organisation, day = part.place
        label = dataset if device_type is None else f"{dataset} {device_type}"
        state = "archived" if part.state == "deleted" else part.state
        what, whose = Text(printable(label)), Text(printable(organisation or "-"))
        name = Text(printable(part.object or "-"))
        table.add_row(what, whose, day.isoformat(), f"{part.rows:,}", size(part.size), state, name)
    show_listing(table)


def _part_json(part: Part) -> dict[str, Any]:
    return {
        **part.place._asdict(),
        "number": part.number,
        "object": part.object,
        "state": "archived" if part.state == "deleted" else part.state,
        "rows": part.rows,
        "bytes": part.size,
        "groups": part.groups,
        "oldest": part.first_time,
        "newest": part.last_time,
        "duplicates": part.duplicates,
        "conflicts": part.conflicts,
        "sha256": part.sha256.hex(),
        "archived_at": part.deleted_at,
    }


def size(count: float) -> str:
    """Bytes for a person.

    >>> size(0), size(1536), size(5 << 40)
    ('0 bytes', '1.5 KiB', '5.0 TiB')
    """
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
