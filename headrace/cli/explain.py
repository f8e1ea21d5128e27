"""`headrace explain`: the route that one message takes, told without sending it anywhere."""

import asyncio
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from headrace.agents.alerting.sample import sample_of
from headrace.agents.alerting.watch import holds
from headrace.agents.ingest import Ingest
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.cli.running import Setup, config_option, set_up
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import TYPE, TopicProfile
from headrace.connectors.topic_routes import MAX_TOPIC_BYTES
from headrace.engine import logging
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.schemas.condition import ValueCondition
from headrace.schemas.text import near


@dataclass(frozen=True, slots=True)
class Explanation:
    """The route of a message.

    Args:
        profile: its name, and why there is none.
        device, device_type, lane: each with where it is from.
        partition: of `partitions`, in every topic the message goes on to.
        goes_to: topics that have it, or what was made of it.
        reading: as `telemetry.readings` has it; None if it is dead-lettered.
        dead_letter: the reason.
        rules: alert rules whose condition holds on the reading.
    """

    topic: str
    profile: str | None
    profile_why: str
    device: str | None
    device_why: str
    device_type: str | None
    device_type_why: str
    lane: str
    lane_why: str
    partition: int
    partitions: int
    goes_to: list[str]
    reading: dict[str, Any] | None
    dead_letter: str | None
    rules: list[dict[str, Any]]


@click.command()
@click.argument("topic")
@click.argument("payload")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def explain(topic: str, payload: str, as_json: bool, config: Path | None) -> None:
    """Print the route of a message on the MQTT topic TOPIC with PAYLOAD (- reads standard input, @FILE a file).

    It takes the way that real messages take, up to the readings and the alert rules that hold, in memory: nothing is
    sent. The device registry and earlier messages are not known.
    """
    setup = set_up(config)
    logging.configure("error")
    made = asyncio.run(explained(os.fsencode(topic), _payload(payload), setup, SystemClock().now_ms()))
    if as_json:
        click.echo(orjson.dumps(asdict(made)).decode())
    else:
        _show(made, setup)


async def explained(topic: bytes, payload: bytes, setup: Setup, now_ms: int) -> Explanation:
    """The route of a message that comes at `now_ms`, ms since 1970 UTC."""
    settings, partitions = setup.settings, setup.settings.log.partitions
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(partitions))
    await RoutedIntake(Intake(log, ManualClock(now_ms)), settings.profiles).append([topic], [payload])
    partition, records = await _appended(log, topics.RAW, partitions)
    urgent = bool((await _appended(log, topics.RAW_PRIORITY, partitions))[1])
    await log.close()

    driven = drive(Ingest(setup.device_types, settings.ingest), records, partition=partition)
    reading = orjson.loads(driven.sent[topics.READINGS][0].value or b"") if driven.sent.get(topics.READINGS) else None
    name, device = records[0].headers[topics.PROFILE].decode(), (records.keys[0] or b"").decode(errors="replace")
    profile = next((each for each in settings.profiles if each.name == name), None)
    goes_to = [topics.RAW, *driven.sent, *[topics.DEAD_LETTERS] * bool(driven.dead_letters)]
    if urgent:
        goes_to += [topics.RAW_PRIORITY, *[topics.READINGS_PRIORITY] * bool(reading)]
    return Explanation(
        topic=topic.decode(errors="backslashreplace"),
        profile=name if profile else None,
        profile_why=profile.topic if profile else _why_unknown(topic, settings.profiles),
        device=None if device == topics.NO_DEVICE else device,
        device_why=_why_device(profile),
        device_type=records[0].headers[topics.DEVICE_TYPE].decode() or None,
        device_type_why=_why_device_type(profile),
        lane="priority" if urgent else "normal",
        lane_why=_why_lane(profile, urgent, known=device != topics.NO_DEVICE),
        partition=partition,
        partitions=partitions,
        goes_to=goes_to,
        reading=reading,
        dead_letter=driven.dead_letters[0][1] if driven.dead_letters else None,
        rules=_holding(setup, reading) if reading else [],
    )


async def _appended(log: EmbeddedLog, topic: str, partitions: int) -> tuple[int, Records]:
    """Where the message is, and the message; no records if it is not in `topic`."""
    for partition in range(partitions):
        fetched = await log.read(TopicPartition(topic, partition), 0, 1)
        if fetched is not None:
            return partition, fetched.records
    return 0, Records([], [], [])


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"PAYLOAD: {text[1:]} cannot be read ({error.strerror})") from error


def _why_unknown(topic: bytes, profiles: tuple[TopicProfile, ...]) -> str:
    if len(topic) > MAX_TOPIC_BYTES:
        return f"the topic has {len(topic)} bytes; {MAX_TOPIC_BYTES} are allowed"
    try:
        text = topic.decode()
    except UnicodeDecodeError:
        return "the topic is not UTF-8"
    known = ", ".join(each.topic for each in profiles)
    return f"profiles take {known}{near(text, {each.resembling(text) for each in profiles} - {text})}"


def _why_device(profile: TopicProfile | None) -> str:
    if profile is None:
        return "without a profile nobody knows where it stands"
    if profile.device_field:
        return f"{' or '.join(profile.device_field)} in the payload"
    return "in the topic"


def _why_device_type(profile: TopicProfile | None) -> str:
    if profile is None:
        return "without a profile there is none"
    return "in the topic" if TYPE in profile.topic.split("/") else "of the profile"


def _why_lane(profile: TopicProfile | None, urgent: bool, *, known: bool) -> str:
    if profile is None or profile.alarm is None:
        return "the profile has no alarms" if profile else "without a profile there are no alarms"
    if not known:
        return "without a device there are no alarms"
    if profile.alarm.field is None:
        return "all messages of the profile are alarms"
    values = ", ".join(orjson.dumps(each).decode() for each in profile.alarm.values)
    return f"{profile.alarm.field} in the payload is {'one' if urgent else 'none'} of {values}"


def _holding(setup: Setup, reading: dict[str, Any]) -> list[dict[str, Any]]:
    """The alert rules whose condition holds on the reading."""
    found = []
    for rule in setup.rules:
        concerned = rule.applies_to(reading["device_type"]) and reading["device_id"] in (
            rule.device_ids or [reading["device_id"]]
        )
        if concerned and isinstance(rule.condition, ValueCondition):
            sample = sample_of(rule.condition, 0, reading["measures"])
            if sample is not None and holds(rule.condition, sample[1], met=False):
                found.append({"rule_id": rule.rule_id, "severity": rule.severity, "condition": str(rule.condition)})
    return found


def _show(made: Explanation, setup: Setup) -> None:
    table = listing("", "", "", header=False)

    def row(name: str, value: object, why: str = "") -> None:
        table.add_row(name, printable(str(value)), printable(why))

    row("topic", made.topic)
    row("profile", made.profile or "none", made.profile_why)
    row("device", made.device or "none", made.device_why)
    row("device type", made.device_type or "none", made.device_type_why)
    row("lane", made.lane, made.lane_why)
    row("partition", f"{made.partition} of {made.partitions}")
    if made.dead_letter is not None:
        row("dead letter", "refused", made.dead_letter)
    if made.reading is not None:
        row("reading", iso_ms(made.reading["time"]), "event time")
        device_type = setup.device_types[made.reading["device_type"]]
        for name, value in made.reading["measures"].items():
            row("", f"{name} {value:g}", device_type.units.get(name, ""))
        for name, value in made.reading.get("extra", {}).items():
            known = name in device_type.fields
            row("", f"{name} {orjson.dumps(value).decode()}", "" if known else "unknown field, kept in extra")
    for place, name in enumerate(made.goes_to):
        row("" if place else "goes to", name)
    for place, rule in enumerate(made.rules):
        row("" if place else "alert rules", f"{rule['rule_id']}: {rule['condition']}", f"holds; {rule['severity']}")
    show_listing(table)
