"""`headrace sparkplug`: what is known of the edge nodes that speak Sparkplug B."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.connectors.sparkplug.edge import NODE, Edge
from headrace.connectors.sparkplug.store import TOPIC, load_edges
from headrace.engine.log import TopicPartition

#: Columns with numbers.
_NUMBERS = ("devices", "bdSeq", "seq", "births", "gaps", "missing", "late", "repeats", "resets", "waiting")


@click.command()
@log_data_option
@config_option
@json_option
def sparkplug(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the edge nodes of Sparkplug B: who is there, what was missing, what waits.

    Counts are of each node since it was first heard of. A node whose births are wanted is asked for them as soon as it
    speaks. See docs/guides/sparkplug.md.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None
    found = asyncio.run(_edges(settings, data))
    if as_json:
        click.echo(orjson.dumps({"edge_nodes": found}).decode())
    else:
        _show(found)


async def _edges(settings: Settings, data: Path | None) -> list[dict[str, Any]]:
    async with opened_log(settings, data) as opened:
        if TOPIC not in {spec.name for spec in await opened.log.topics()}:
            return []
        entries = [entry async for chunk in opened.log.restore(TopicPartition(TOPIC, 0)) for entry in chunk]
    edges, _ = load_edges(entries, lambda name: Edge(name, settings.sparkplug))
    return [_told(edge) for _, edge in sorted(edges.items())]


def _told(edge: Edge) -> dict[str, Any]:
    session = edge.session
    state = "online" if session.online else "dead" if session.counts.births else "never born"
    devices = [device for device, known in edge.catalogues.items() if device != NODE and known.connection]
    return {
        "edge_node": edge.name,
        "state": state,
        "devices": len(devices),
        "bdSeq": session.bd_seq,
        "seq": session.seq,
        **asdict(session.counts),
        "waiting": len(edge.held),
        "wants_rebirth": session.wants_rebirth,
    }


def _show(found: Sequence[dict[str, Any]]) -> None:
    table = listing("edge node", "state", *_NUMBERS, "", right=_NUMBERS)
    for each in found:
        numbers = ["-" if each[name] is None else f"{each[name]:,}" for name in _NUMBERS]
        table.add_row(
            printable(each["edge_node"]), each["state"], *numbers, "births wanted" if each["wants_rebirth"] else ""
        )
    show_listing(table)
