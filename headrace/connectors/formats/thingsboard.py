"""ThingsBoard's MQTT API: telemetry of a device (`v1/devices/me/telemetry`) and of a gateway (`v1/gateway/telemetry`).

Source: https://thingsboard.io/docs/reference/mqtt-api/ and https://thingsboard.io/docs/reference/gateway-mqtt-api/.
"""

from typing import Any

from headrace.connectors.formats.parts import Aside, Message, NotUnpacked, Part, Rows, is_number, kind, loads

#: Levels of topics that carry something else than telemetry.
_OTHERS = frozenset({"attributes", "claim", "connect", "disconnect", "rpc"})
#: In topics, whoever publishes.
_WHOEVER = "me"
_NOBODY = (
    'the topic says "me", and nobody knows here who that is: set own_level = "me" in [listener], let the broker put '
    "the device's name there, or name a device_field"
)


class ThingsBoard:
    """`{"key": value}`, `{"ts": ms, "values": {…}}`, or an array of these; of the device that the profile says.

    Without `ts` there is no time: the device type says what becomes of those (`time.missing`).

    Args:
        time_field: of the objects that are made.
    """

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field

    def __call__(self, message: Message) -> list[Part] | Aside:
        """See `headrace.connectors.formats.parts.Unpack`."""
        other = _other(message)
        if other is not None:
            return other
        if message.device_id == _WHOEVER:
            raise NotUnpacked(_NOBODY)
        document = loads(message.payload)
        rows = Rows(message.payload, self._time_field)
        _add(rows, message.device_id, document if isinstance(document, list) else [document])
        return rows.parts()


class ThingsBoardGateway:
    """`{"Device A": [{"ts": ms, "values": {…}}, …], …}`: each device by its name.

    Args:
        time_field: of the objects that are made.
    """

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field

    def __call__(self, message: Message) -> list[Part] | Aside:
        """See `headrace.connectors.formats.parts.Unpack`."""
        other = _other(message)
        if other is not None:
            return other
        document = loads(message.payload)
        if not isinstance(document, dict):
            raise NotUnpacked(f"payload is {kind(document)}, not an object with an array for each device")
        rows = Rows(message.payload, self._time_field)
        for name, entries in document.items():
            if not name:
                raise NotUnpacked("a device has an empty name")
            if not isinstance(entries, list):
                raise NotUnpacked(f"what it has for device {name[:64]!r} is {kind(entries)}, not an array")
            _add(rows, name, entries)
        return rows.parts()


def _add(rows: Rows, device_id: str, entries: list[Any]) -> None:
    for entry in entries:
        if not isinstance(entry, dict):
            raise NotUnpacked(f"an entry is {kind(entry)}, not an object")
        time, values = None, entry
        if "ts" in entry and "values" in entry:
            time, values = entry["ts"], entry["values"]
            if not is_number(time) or not abs(time) < 1e18:
                raise NotUnpacked(f"ts is {kind(time)}, not a time in ms since 1970 UTC")
            if not isinstance(values, dict):
                raise NotUnpacked(f"values is {kind(values)}, not an object")
        if values:
            rows.add(device_id, None if time is None else round(time), values)


def _other(message: Message) -> Aside | None:
    """What the message is if it is not telemetry."""
    for level in message.topic[1:]:
        if level in _OTHERS and message.topic[-1] != "telemetry":
            known = "" if message.device_id == _WHOEVER else message.device_id
            return Aside(level, known or _named(message.payload))
    return None


def _named(payload: bytes) -> str:
    """The device in `{"device": "Device A"}`."""
    try:
        document = loads(payload)
    except NotUnpacked:
        return ""
    name = document.get("device") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""
