"""`headrace explain`: the route that one message takes, told without sending it anywhere."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from headrace.cli.explanation import MOST_PARTS, Explanation, PartExplanation, explained
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.cli.running import Setup, config_option, set_up
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError


@click.command()
@click.argument("topic")
@click.argument("payload")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def explain(topic: str, payload: str, as_json: bool, config: Path | None) -> None:
    """Print the route of a message on the MQTT topic TOPIC with PAYLOAD (- reads standard input, @FILE a file).

    It takes the way that real messages take, up to the readings and the alert rules that hold, in memory: nothing is
    sent. A message that holds several records is shown with each. The device registry and earlier messages are not
    known.
    """
    setup = set_up(config)
    logging.configure("error")
    made = asyncio.run(explained(os.fsencode(topic), _payload(payload), setup, SystemClock().now_ms()))
    if as_json:
        click.echo(orjson.dumps(asdict(made)).decode())
    else:
        _show(made, setup)


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"PAYLOAD: {text[1:]} cannot be read ({error.strerror})") from error


def _show(made: Explanation, setup: Setup) -> None:
    table = listing("", "", "", header=False)

    def row(name: str, value: object, why: str = "") -> None:
        table.add_row(name, printable(str(value)), printable(why))

    row("topic", made.topic)
    row("profile", made.profile or "none", made.profile_why)
    row("device", made.device or "none", made.device_why)
    row("device type", made.device_type or "none", made.device_type_why)
    row("lane", made.lane, made.lane_why)
    if made.format != "json":
        what = f"{made.records:,} record{'' if made.records == 1 else 's'}"
        row("format", made.format, f"event {made.event}, no reading" if made.event else what)
    row("partition", f"{made.partition} of {made.partitions}")
    if not made.parts:
        _show_part(row, made, setup)
    for number, part in enumerate(made.parts, start=1):
        lane = ", priority lane" if part.urgent else ""
        row(f"record {number}", part.device or "none", f"partition {part.partition}{lane}")
        _show_part(row, part, setup)
    if made.records > MOST_PARTS:
        row("", f"and {made.records - MOST_PARTS:,} more")
    show_listing(table)


def _show_part(row: Callable[..., None], part: Explanation | PartExplanation, setup: Setup) -> None:
    if part.sequence is not None:
        said = part.sequence.removeprefix("? ")
        if said == part.sequence:
            number, modulo, *_ = said.split()
            row("sequence", number, f"of {int(modulo):,} numbers")
        else:
            row("sequence", "not counted", said)
    if part.dead_letter is not None:
        row("dead letter", "refused", part.dead_letter)
    if part.reading is not None:
        row("reading", iso_ms(part.reading["time"]), "event time")
        device_type = setup.device_types[part.reading["device_type"]]
        for name, value in part.reading["measures"].items():
            row("", f"{name} {value:g}", device_type.units.get(name, ""))
        for name, value in part.reading.get("extra", {}).items():
            known = name in device_type.fields
            row("", f"{name} {orjson.dumps(value).decode()}", "" if known else "unknown field, kept in extra")
    for place, name in enumerate(part.goes_to):
        row("" if place else "goes to", name)
    for place, rule in enumerate(part.rules):
        row("" if place else "alert rules", f"{rule['rule_id']}: {rule['condition']}", f"holds; {rule['severity']}")
