"""What `headrace topics` prints."""

from collections.abc import Sequence
from typing import Any

import click
import orjson
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.engine.log import Log
from headrace.engine.topic_overview import GroupView, TopicView, key_counts


def show_topics(views: Sequence[TopicView], groups: Sequence[str], *, as_json: bool) -> None:
    """Print a line per topic, with the lag of each group."""
    if as_json:
        _print_json({"topics": [_topic_json(view) for view in views]})
        return
    lags = [f"lag {group}" for group in groups]
    table = listing(
        "topic", "partitions", "records", "compacted", *lags, "owner", right=("partitions", "records", *lags)
    )
    for view in views:
        by_group = {each.group: each for each in view.groups}
        lag = [f"{view.total_lag(by_group[group]):,}" if group in by_group else "" for group in groups]
        records = "" if view.records is None else f"{view.records:,}"
        compacted = "yes" if view.spec.compacted else ""
        cells = (view.spec.name, str(view.spec.partitions), records, compacted, *lag, _owners(view))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    show_listing(table)


async def show_partitions(log: Log, view: TopicView, *, as_json: bool) -> None:
    """Print a line per partition and group; of a compacted topic, how many keys it has."""
    keys = await key_counts(log, view.spec) if view.spec.compacted else None
    if as_json:
        _print_json({**_topic_json(view), "by_partition": [_partition_json(view, at, keys) for at in _numbers(view)]})
        return
    if keys is not None:
        table = listing("partition", "keys", right=("partition", "keys"))
        for number, count in enumerate(keys):
            table.add_row(str(number), f"{count:,}")
    else:
        table = listing(
            "partition", "start", "end", "group", "position", "lag", "owner",
            right=("partition", "start", "end", "position", "lag"),
        )  # fmt: skip
        groups: Sequence[GroupView | None] = view.groups or [None]
        for target in sorted(view.ends):
            first = (str(target.partition), f"{view.starts[target]:,}", f"{view.ends[target]:,}")
            for group in groups:
                rest = () if group is None else (
                    group.group, f"{group.positions[target]:,}", f"{view.lag(group, target):,}",
                    group.owners.get(target, ""),
                )  # fmt: skip
                table.add_row(*(Text(printable(cell)) for cell in (*first, *rest)))
    show_listing(table)


def _owners(view: TopicView) -> str:
    names = sorted({name for group in view.groups for name in group.owners.values()})
    return names[0] if len(names) == 1 else f"{len(names)} workers" if names else ""


def _numbers(view: TopicView) -> range:
    return range(len(view.ends))


def _topic_json(view: TopicView) -> dict[str, Any]:
    return {
        "topic": view.spec.name,
        "partitions": view.spec.partitions,
        "records": view.records,
        "compacted": view.spec.compacted,
        "groups": {
            group.group: {"lag": view.total_lag(group), "owners": sorted(set(group.owners.values()))}
            for group in view.groups
        },
    }


def _partition_json(view: TopicView, number: int, keys: list[int] | None) -> dict[str, Any]:
    target = sorted(view.ends)[number]
    if keys is not None:
        return {"partition": number, "keys": keys[number]}

    def group_json(group: GroupView) -> dict[str, Any]:
        return {
            "position": group.positions[target],
            "lag": view.lag(group, target),
            "owner": group.owners.get(target),
        }

    return {
        "partition": target.partition,
        "start": view.starts[target],
        "end": view.ends[target],
        "groups": {group.group: group_json(group) for group in view.groups},
    }


def _print_json(document: dict[str, Any]) -> None:
    click.echo(orjson.dumps(document).decode())
