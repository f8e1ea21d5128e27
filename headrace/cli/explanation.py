"""The route that one message takes, found out in memory."""

from dataclasses import dataclass
from typing import Any

import orjson

from headrace.agents.alerting.sample import sample_of
from headrace.agents.alerting.watch import holds
from headrace.agents.ingest import Ingest
from headrace.cli.explanation_sparkplug import append_sparkplug, sparkplug_profile, without_records
from headrace.cli.running import Setup
from headrace.connectors.formats import NAMES_DEVICES
from headrace.connectors.formats.parts import MAX_ITEMS
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import DEVICE, TYPE, TopicProfile
from headrace.connectors.topic_routes import MAX_TOPIC_BYTES
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.engine.testkit import drive
from headrace.schemas import topics
from headrace.schemas.condition import ValueCondition
from headrace.schemas.text import near

#: Records of one message that are shown.
MOST_PARTS = 50


@dataclass(frozen=True, slots=True)
class PartExplanation:
    """What becomes of one record of a message; as in `Explanation`."""

    device: str | None
    sequence: str | None
    partition: int
    urgent: bool
    goes_to: list[str]
    reading: dict[str, Any] | None
    dead_letter: str | None
    rules: list[dict[str, Any]]


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
        sequence: number of the message and how many there are, or behind a question mark why it is none.
        format: of the payload.
        event: what the message is about, if it is no reading.
        records: that the message is unpacked to, count; what stands above is of the first.
        parts: each of them, at most `MOST_PARTS`; empty for a message that is one record.
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
    sequence: str | None
    format: str
    event: str | None
    records: int
    parts: list[PartExplanation]


async def explained(topic: bytes, payload: bytes, setup: Setup, now_ms: int) -> Explanation:
    """The route of a message that comes at `now_ms`, ms since 1970 UTC."""
    settings, partitions = setup.settings, setup.settings.log.partitions
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(partitions))
    clock = ManualClock(now_ms)
    sparkplug = sparkplug_profile(topic, settings.profiles)
    if sparkplug is None:
        await RoutedIntake(Intake(log, clock), settings.profiles, clock=clock).append([topic], [payload])
    else:
        await append_sparkplug(setup, sparkplug, log, clock, topic, payload)
    appended = await _appended(log, topics.RAW, partitions)
    events = await _appended(log, topics.EVENTS, partitions)
    urgent = {
        records.header(topics.MESSAGE_ID)[0] for _, records in await _appended(log, topics.RAW_PRIORITY, partitions)
    }
    lives = [] if sparkplug is None else await _appended(log, topics.PRESENCE, partitions)
    await log.close()

    if sparkplug is not None and not appended:
        return _quiet(topic, sparkplug, partitions, alive=bool(lives))
    ingest = Ingest(setup.device_types, settings.ingest)
    parts = [
        _part(setup, ingest, *each, urgent=each[1].header(topics.MESSAGE_ID)[0] in urgent)
        for each in appended[:MOST_PARTS]
    ]
    if events:
        device = _device(events[0][1])
        parts = parts or [PartExplanation(device, None, events[0][0], False, [topics.EVENTS], None, None, [])]
    (_, records), first = (appended or events)[0], parts[0]
    name = records[0].headers[topics.PROFILE].decode()
    profile = next((each for each in settings.profiles if each.name == name), None)
    return Explanation(
        topic=topic.decode(errors="backslashreplace"),
        profile=name if profile else None,
        profile_why=profile.topic if profile else _why_unknown(topic, settings.profiles),
        device=first.device,
        device_why=_why_device(profile),
        device_type=records[0].headers.get(topics.DEVICE_TYPE, b"").decode() or None,
        device_type_why=_why_device_type(profile),
        lane="priority" if first.urgent else "normal",
        lane_why=_why_lane(profile, first.urgent, known=first.device is not None),
        partition=first.partition,
        partitions=partitions,
        goes_to=first.goes_to,
        reading=first.reading,
        dead_letter=first.dead_letter,
        rules=first.rules,
        sequence=first.sequence,
        format=profile.format if profile else "json",
        event=events[0][1][0].headers[topics.EVENT].decode() if events else None,
        records=len(appended),
        parts=parts if len(appended) > 1 else [],
    )


def _quiet(topic: bytes, profile: TopicProfile, partitions: int, *, alive: bool) -> Explanation:
    """Of a Sparkplug message that makes no record; `alive` is whether it says who is there."""
    event, device = without_records(topic)
    return Explanation(
        topic=topic.decode(errors="backslashreplace"),
        profile=profile.name,
        profile_why=profile.topic,
        device=device,
        device_why="in the topic",
        device_type=profile.device_type,
        device_type_why=_why_device_type(profile),
        lane="normal",
        lane_why=_why_lane(profile, False, known=device is not None),
        partition=Partitioner(partitions).partition((device or topics.NO_DEVICE).encode()),
        partitions=partitions,
        goes_to=[topics.PRESENCE] if alive else [],
        reading=None,
        dead_letter=None,
        rules=[],
        sequence=None,
        format=profile.format,
        event=event,
        records=0,
        parts=[],
    )


def _part(setup: Setup, ingest: Ingest, partition: int, record: Records, *, urgent: bool) -> PartExplanation:
    """What ingest makes of one record, behind those before it."""
    driven = drive(ingest, record, partition=partition)
    reading = orjson.loads(driven.sent[topics.READINGS][0].value or b"") if driven.sent.get(topics.READINGS) else None
    goes_to = [topics.RAW, *driven.sent, *[topics.DEAD_LETTERS] * bool(driven.dead_letters)]
    if urgent:
        goes_to += [topics.RAW_PRIORITY, *[topics.READINGS_PRIORITY] * bool(reading)]
    return PartExplanation(
        device=_device(record),
        sequence=(record.header(topics.SEQUENCE)[0] or b"").decode(errors="replace") or None,
        partition=partition,
        urgent=urgent,
        goes_to=goes_to,
        reading=reading,
        dead_letter=driven.dead_letters[0][1] if driven.dead_letters else None,
        rules=_holding(setup, reading) if reading else [],
    )


def _device(record: Records) -> str | None:
    name = (record.keys[0] or b"").decode(errors="replace")
    return None if name == topics.NO_DEVICE else name


async def _appended(log: EmbeddedLog, topic: str, partitions: int) -> list[tuple[int, Records]]:
    """The records that are in `topic`, one by one in the order in which they were accepted, each with where it is."""
    found: list[tuple[int, Records]] = []
    for partition in range(partitions):
        fetched = await log.read(TopicPartition(topic, partition), 0, MAX_ITEMS)
        if fetched is not None:
            found += [(partition, fetched.records.slice(row, row + 1)) for row in range(len(fetched.records))]
    return sorted(found, key=lambda each: each[1].header(topics.MESSAGE_ID)[0] or b"")


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
    if profile.format in NAMES_DEVICES and DEVICE not in profile.topic.split("/"):
        return "in the payload"
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
