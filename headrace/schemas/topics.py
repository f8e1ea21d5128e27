"""The topics of headrace and the headers its records carry."""

RAW = "telemetry.raw"
READINGS = "telemetry.readings"
#: Copies of what is an alarm, and of the readings made of them: nothing else stands before them there.
RAW_PRIORITY = "telemetry.raw.priority"
READINGS_PRIORITY = "telemetry.readings.priority"
ROLLUPS = "telemetry.rollups"
ANOMALIES = "telemetry.anomalies"
LATE = "telemetry.late"
CONFLICTS = "telemetry.conflicts"
DEAD_LETTERS = "telemetry.dlq"
#: Changes of alerts: CloudEvents, key device id; see `headrace.schemas.alert`.
ALERTS = "alerts.v1"
#: The newest alert of each rule and device, compacted: key alert id, value a `headrace.schemas.alert.Alert` as JSON.
ALERT_STATES = "alerts.state.v1"
#: What people want done with alerts: key device id, value a `headrace.schemas.alert_command.AlertCommand` as JSON.
ALERT_COMMANDS = "alerts.commands.v1"
#: Silences, compacted: key silence id, value a `headrace.schemas.silence.Silence` as JSON.
SILENCES = "alerts.silences.v1"
#: Open alerts of gateways that explain others, compacted, for every worker: key gateway id and rule id.
ALERT_CAUSES = "alerts.causes"
#: That an alert may concern somebody: key recipient, value a `headrace.schemas.notification.Request` as JSON.
NOTIFICATION_REQUESTS = "notifications.requests"
#: What is to be sent: key recipient, value a `headrace.schemas.notification.Notification` as JSON.
OUTBOX = "notifications.outbox"
#: What became of notifications about alerts: CloudEvents, key recipient.
NOTIFICATIONS = "notifications.v1"
#: The delivery log, compacted: key notification id, value a `headrace.schemas.notification.NotificationState` as JSON.
NOTIFICATION_STATES = "notifications.state.v1"
#: What delivery has taken from the outbox and not finished, compacted: key as in the delivery log, partition as in the
#: outbox; only delivery itself reads it.
NOTIFICATIONS_PENDING = "notifications.pending"
#: Notifications that are not tried any more: key recipient, value a `headrace.schemas.notification.Notification`.
NOTIFICATION_DEAD_LETTERS = "notifications.dlq"
#: Contacts that nothing reaches, compacted: value a `headrace.schemas.dead_contact.DeadContact` as JSON.
DEAD_CONTACTS = "notifications.contacts"
#: Alert rules, compacted: key rule id, value an `AlertRule` as JSON.
RULES = "rules"
#: The device registry, compacted: key device id, value a `headrace.schemas.device.Device` as JSON.
DEVICES = "registry.devices"
#: People who may be told, compacted: key user id, value a `headrace.schemas.user.User` as JSON.
USERS = "registry.users"
#: Connects and disconnects of devices on headrace's own MQTT listener, births and deaths of Sparkplug: key device id,
#: value a `headrace.schemas.presence.Presence` as JSON.
PRESENCE = "devices.presence"
#: Messages of devices that are no readings, such as joins: key device id, value as sent, header `event`.
EVENTS = "devices.events"
#: Sequence numbers of devices and what was lost between them, compacted: key device id, value a
#: `headrace.schemas.sequence.DeviceSequences` as JSON.
SEQUENCES = "devices.sequences"
#: Commands to devices, as sent: key device id, header `source-topic` the MQTT topic; optional headers below.
COMMANDS = "devices.commands"
#: Of a command: its QoS as a digit, 1 if absent; the MQTT 5 properties that go with it, as on the wire; who sent it.
MQTT_QOS = "mqtt-qos"
MQTT_PROPERTIES = "mqtt-properties"
MQTT_CLIENT_ID = "mqtt-client-id"

#: What the agents write; partitioned by device like `RAW`.
OUTPUTS = (READINGS, READINGS_PRIORITY, ROLLUPS, ANOMALIES, LATE, CONFLICTS, DEAD_LETTERS, ALERTS)

#: The priority lane: what comes here overtakes everything else.
PRIORITY = frozenset({RAW_PRIORITY, READINGS_PRIORITY})

#: Id given to a message when it was accepted; carried from the source to the sink and into every log line.
MESSAGE_ID = "message-id"
#: Name of the topic profile that took the message (how its source topic and payload are read).
PROFILE = "profile"
#: Name of the device type (see `headrace.schemas.DeviceType`).
DEVICE_TYPE = "device-type"
#: How many bytes the payload had, where it was larger than the log takes and only its beginning is kept.
PAYLOAD_BYTES = "payload-bytes"
#: Why a message could not be unpacked by the format of its profile; ingest refuses it.
REFUSED = "unpack-refused"
#: Sequence number of a message: the number, how many there are, and the event time in ms if the source knows it, each
#: separated by a space.
SEQUENCE = "sequence"
#: What a message in `devices.events` is about.
EVENT = "event"
#: Device id of a message that names none; ingest refuses it.
NO_DEVICE = "?"
#: Longest device id, characters.
MAX_DEVICE_ID = 256
#: Name of the topic profile of a message whose topic no profile takes.
NO_PROFILE = ""

#: Of a dead letter that was sent back: as of when replicated tables are asked about it, ms since 1970 UTC. Its append
#: time is that of the first time.
REDRIVEN_AT = "redriven-at"
#: Of the same: the id of the dead letter.
REDRIVEN_FROM = "redriven-from"
#: Media type of the value.
CONTENT_TYPE = "content-type"
#: Where the device sent it: MQTT topic, HTTP path, or file and line.
SOURCE = "source-topic"
