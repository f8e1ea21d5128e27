"""What `headrace database` prints."""

from collections.abc import Sequence
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.connectors.timescale.policies import Action, missing_features
from headrace.connectors.timescale.status import DatabaseStatus, TableStatus
from headrace.connectors.timescale.timescale_state import TimescaleState


def show_status(found: DatabaseStatus, *, as_json: bool) -> None:
    """Print everything about a database."""
    if as_json:
        click.echo(orjson.dumps(_json(found)).decode())
        return
    click.echo(f"PostgreSQL {found.server}, {_version(found.timescale)}, as role {found.role}")
    for note in (*found.problems, *found.notes):
        click.echo(note)
    click.echo(f"{len(found.applied)} migrations applied, {len(found.missing)} missing")
    for version in found.missing:
        click.echo(f"  missing: {version}")
    for action in found.different:
        click.echo(f"  not as configured: {action.what}")
    hyper = found.timescale is not None
    more = ("chunk", "chunks", "columnar") if hyper else ()
    table = listing("table", "rows", "size", *more, right=("rows", "size", *more))
    for each in found.tables:
        cells = (each.name, f"{each.rows:,}", _size(each.size), *(_chunks(each) if hyper else ()))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if found.tables:
        show_listing(table)
    if found.timescale is not None:
        _show_timescale(found.timescale)


def show_actions(state: TimescaleState | None, actions: Sequence[Action], *, applied: bool, as_json: bool) -> None:
    """Print what is, or was, to do."""
    notes = missing_features(state)
    if as_json:
        found = [{"what": action.what, "sql": action.sql} for action in actions]
        click.echo(orjson.dumps({"notes": notes, "applied": applied, "actions": found}).decode())
        return
    for note in notes:
        click.echo(note)
    for action in actions:
        click.echo(f"{'done' if applied else 'to do'}: {action.what}")
        if not applied:
            click.echo(f"    {action.sql}")
    if not actions and state is not None:
        click.echo("nothing to do: everything is as configured")


def _show_timescale(state: TimescaleState) -> None:
    for name, seconds in sorted(state.after.items()):
        click.echo(f"columnstore of {printable(name)}: after {seconds / 86_400:g} days")
    for name, seconds in sorted(state.retention.items()):
        click.echo(f"retention of {printable(name)}: {seconds / 86_400:g} days")
    for job in state.jobs:
        views = job.config.get("views", [])
        click.echo(f"job {job.number}: refreshes {len(views)} continuous aggregates every {job.every:g} s")


def _version(state: TimescaleState | None) -> str:
    if state is None:
        return "no TimescaleDB"
    edition = "community" if state.community else "Apache"
    return f"TimescaleDB {'.'.join(map(str, state.version))} ({edition} edition)"


def _chunks(table: TableStatus) -> tuple[str, str, str]:
    if table.chunk_seconds is None:
        return "", "", ""
    return f"{table.chunk_seconds / 86_400:g} d", f"{table.chunks:,}", f"{table.columnar:,}"


def _size(count: int) -> str:
    """Bytes for a person.

    >>> _size(3 << 20)
    '3.0 MiB'
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _json(found: DatabaseStatus) -> dict[str, Any]:
    state = found.timescale
    return {
        "server": found.server,
        "role": found.role,
        "timescaledb": None
        if state is None
        else {
            "version": ".".join(map(str, state.version)),
            "edition": "community" if state.community else "apache",
            "columnstore_after": state.after,
            "retention": state.retention,
            "continuous_aggregates": sorted(state.views),
            "jobs": [{"job": job.number, "every": job.every, **job.config} for job in state.jobs],
        },
        "applied": [{"version": version, "at": at} for version, at in found.applied],
        "missing": list(found.missing),
        "problems": list(found.problems),
        "notes": list(found.notes),
        "different": [{"what": action.what, "sql": action.sql} for action in found.different],
        "tables": [
            {
                "table": each.name,
                "rows": each.rows,
                "bytes": each.size,
                "chunk_seconds": each.chunk_seconds,
                "chunks": each.chunks,
                "columnar_chunks": each.columnar,
            }
            for each in found.tables
        ],
    }
