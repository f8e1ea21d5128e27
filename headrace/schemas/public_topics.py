"""The topics that others may read or write: what each carries, its key, its headers, and what is promised."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from headrace.schemas import headers, topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.alert_command import ALERT_COMMAND
from headrace.schemas.anomaly import Anomaly
from headrace.schemas.conflict import Conflict
from headrace.schemas.device import Device
from headrace.schemas.headers import Header
from headrace.schemas.notification import Notification, NotificationEvent, NotificationState
from headrace.schemas.presence import Presence
from headrace.schemas.readings import ReadingDocument
from headrace.schemas.rollup import LateReading, Rollup
from headrace.schemas.rule import AlertRule
from headrace.schemas.sequence import DeviceSequences
from headrace.schemas.silence import Silence
from headrace.schemas.user import User

JSON = "application/json"
CLOUD_EVENT = "application/cloudevents+json"
OPAQUE = "application/octet-stream"

#: What agents write.
ONCE = (
    "Each once: records become visible together with the position in what they were made of, or not at all. On Kafka "
    "read with isolation level read_committed, or you see what was taken back."
)
#: Who commits positions after its work has each record at least once, in the order of its key.
ORDER = "Records of a key are in order, in one partition."
NEWEST = (
    "Compacted: the newest value of each key stays; a record without a value deletes its key. Whoever reads from the "
    "beginning has a copy."
)


class PublicTopic(NamedTuple):
    """One topic.

    Args:
        name: its address.
        title: of what a record is.
        carries: what it carries, in a sentence.
        key: what the record key is.
        model: reads and writes the value; None for bytes that only their sender and receiver know.
        promise: of delivery and order.
        access: `read`: headrace writes it, you read; `write`: you write it, headrace reads; `both`.
        headers: by name.
        compacted: whether the newest value per key is kept, rather than all records.
        media: media type of the value.
    """

    name: str
    title: str
    carries: str
    key: str
    model: Any
    promise: str
    access: Literal["read", "write", "both"] = "read"
    headers: Mapping[str, Header] = {}
    compacted: bool = False
    media: str = JSON


_DEVICE = "the device id, UTF-8"
_RECIPIENT = "the recipient, `user:ID`, `integration:NAME` or `webhook:ADDRESS`, UTF-8"
_RAW = (
    "A message is acknowledged to its sender once it is here. Who sends again what was not acknowledged in time has it "
    f"here twice, under two message ids; the readings have it once. {ORDER}"
)
_ALARMS = "Copies: what is here is in the ordinary topic too, and only that is counted. "

PUBLIC_TOPICS = (
    PublicTopic(
        topics.RAW, "RawMessage", "Messages as the devices sent them.", _DEVICE, None, _RAW,
        headers=headers.RAW, media=OPAQUE,
    ),
    PublicTopic(
        topics.RAW_PRIORITY, "RawAlarm", "Copies of the messages that are alarms; nothing else stands before them.",
        _DEVICE, None, _ALARMS + _RAW, headers=headers.RAW, media=OPAQUE,
    ),
    PublicTopic(
        topics.READINGS, "Reading", "One normalised reading per message that was right and told something new.",
        _DEVICE, ReadingDocument, f"{ONCE} {ORDER}", headers=headers.READING,
    ),
    PublicTopic(
        topics.READINGS_PRIORITY, "AlarmReading",
        "Readings of the messages that are alarms, before their turn; repeats are not looked for.",
        _DEVICE, ReadingDocument, f"{_ALARMS}{ONCE} {ORDER}", headers=headers.READING,
    ),
    PublicTopic(
        topics.ROLLUPS, "Rollup", "Aggregates per device and window, and their corrections.",
        _DEVICE, Rollup, f"{ONCE} {ORDER}",
    ),
    PublicTopic(
        topics.ANOMALIES, "Anomaly", "What detectors found unusual.",
        _DEVICE, Anomaly, f"{ONCE} {ORDER}", headers=headers.CAUSED,
    ),
    PublicTopic(
        topics.LATE, "LateReading", "Readings that came too late for a window.",
        _DEVICE, LateReading, f"{ONCE} {ORDER}",
    ),
    PublicTopic(
        topics.CONFLICTS, "Conflict", "Messages that contradict what was accepted before.",
        _DEVICE, Conflict, f"{ONCE} {ORDER}", headers=headers.READING,
    ),
    PublicTopic(
        topics.DEAD_LETTERS, "DeadLetter", "Records that cannot be read or worked on, as they were, with the reason.",
        "that of the record", None, f"{ONCE} {ORDER}", headers=headers.DEAD_LETTER, media=OPAQUE,
    ),
    PublicTopic(
        topics.ALERTS, "AlertEvent", "What happened to alerts: CloudEvents 1.0 in JSON, structured mode.",
        _DEVICE, AlertEvent, f"{ONCE} {ORDER} So the events of one alert, and of all alerts of a device, are in order.",
        headers=headers.EVENT, media=CLOUD_EVENT,
    ),
    PublicTopic(
        topics.ALERT_STATES, "Alert", "The newest alert of each rule and device, as it is now.",
        "the alert id; the partition is that of the device", Alert,
        f"{ONCE} {NEWEST} An alert is deleted when a newer one of the same rule and device takes its place, or when it "
        "has been over for 30 days.",
        compacted=True,
    ),
    PublicTopic(
        topics.ALERT_COMMANDS, "AlertCommand", "What people want done with alerts.",
        "the device id of the alert, UTF-8", ALERT_COMMAND,
        "Carried out once, in the order of a device's commands; a command id that came before does nothing. One that "
        "cannot be carried out is answered by a `refused` event on `alerts.v1`; what is no command goes to "
        "`telemetry.dlq`. Write with acks=all, to the partition that the key has by murmur2, as Kafka's Java client "
        "does.",
        access="write",
    ),
    PublicTopic(
        topics.OUTBOX, "Notification", "What is to be sent, to whom, by which channel.",
        _RECIPIENT, Notification, f"{ONCE} {ORDER} So what one person is told is in order, on each channel.",
        headers=headers.CAUSED,
    ),
    PublicTopic(
        topics.NOTIFICATIONS, "NotificationEvent",
        "What was decided about notifications, and what became of them: CloudEvents 1.0 in JSON, structured mode.",
        _RECIPIENT, NotificationEvent, f"{ONCE} {ORDER}", headers=headers.EVENT, media=CLOUD_EVENT,
    ),
    PublicTopic(
        topics.NOTIFICATION_STATES, "NotificationState", "The delivery log: each message to a contact, as it is now.",
        "the notification id, and `#2` and so on for further contacts; the partition is that of the recipient",
        NotificationState, f"{ONCE} {NEWEST} A row is deleted when it has been over for 30 days.", compacted=True,
    ),
    PublicTopic(
        topics.SILENCES, "Silence", "Silences: which alerts nobody is told of, from when until when.",
        "the silence id", Silence, f"{NEWEST} Changes apply to what is appended later.", access="both", compacted=True,
    ),
    PublicTopic(
        topics.RULES, "AlertRule", "Alert rules.",
        "the rule id", AlertRule, f"{NEWEST} Changes apply to what is appended later. A rule that is wrong is not "
        "taken, and counted; the one before it stays. `headrace rules` checks them first.",
        access="both", compacted=True,
    ),
    PublicTopic(
        topics.DEVICES, "Device", "The device registry.",
        _DEVICE, Device, f"{NEWEST} Changes apply to what is appended later. `headrace devices` checks them first.",
        access="both", compacted=True,
    ),
    PublicTopic(
        topics.USERS, "User", "People who may be told of alerts.",
        "the user id", User, f"{NEWEST} Changes apply to what is appended later. A user that is wrong is not taken, "
        "and counted; the one before it stays. `headrace users` checks them first.",
        access="both", compacted=True,
    ),
    PublicTopic(
        topics.PRESENCE, "Presence",
        "Connects and disconnects of devices on headrace's own MQTT listener; births and deaths of Sparkplug's.",
        _DEVICE, Presence,
        "Of connections at most once: written within about 50 ms, and what was not when the listener is killed is "
        f"lost. Of births and deaths together with what these say. {ORDER}",
    ),
    PublicTopic(
        topics.EVENTS, "DeviceEvent", "Messages of devices that are no readings, as they were sent: joins, attributes.",
        f"{_DEVICE}; `?` where the message names none", None,
        f"A message is acknowledged to its sender once it is here; one that is sent again is here twice. {ORDER}",
        headers=headers.DEVICE_EVENT, media=OPAQUE,
    ),
    PublicTopic(
        topics.SEQUENCES, "DeviceSequences", "Sequence numbers of devices: received, lost, late, repeated, begun anew.",
        _DEVICE, DeviceSequences, f"{ONCE} {NEWEST} Written with each commit, for the devices whose counts changed.",
        compacted=True,
    ),
    PublicTopic(
        topics.COMMANDS, "DeviceCommand", "Commands to devices, as sent.",
        _DEVICE, None, "Delivered to devices that are connected to headrace's own MQTT listener and subscribed, with "
        f"the QoS that they asked for. {ORDER}",
        access="both", headers=headers.COMMAND, media=OPAQUE,
    ),
)  # fmt: skip
BY_NAME: Mapping[str, PublicTopic] = {topic.name: topic for topic in PUBLIC_TOPICS}
