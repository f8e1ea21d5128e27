"""ChirpStack v4: events of its MQTT integration in JSON, `application/ID/device/EUI/event/up` and others.

Source: https://www.chirpstack.io/docs/chirpstack/integrations/events.html and api/proto/integration/integration.proto.
By protobuf's JSON mapping a field with its default value is left out: an uplink without `fCnt` has the counter 0.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.connectors.formats.parts import (
    Aside,
    Message,
    NotUnpacked,
    Part,
    Rows,
    check_items,
    check_output,
    is_number,
    kind,
    loads,
    most_output,
)
from headrace.connectors.formats.sequence import sequence_header

#: Frame counters that ChirpStack reports have 32 bits, whatever the device sends of them.
FRAME_COUNTERS = 1 << 32
#: How deep objects of a codec may nest.
MAX_DEPTH = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NO_OBJECT = (
    "the uplink has no decoded object: set a codec in the device profile of ChirpStack (device profiles, Codec), "
    "so that it does not send bytes alone"
)
_BINARY = "; ChirpStack sends Protocol Buffers unless json = true is set in its [integration.mqtt]"


class ChirpStack:
    """Uplinks (`up`), and the readings of `status` and `location`; any other event is put aside.

    The values are those of the codec's `object`; nested ones are named by the path, as in `gps_lat`. Beside them
    `rssi`, `snr` and `gateway` of the gateway that heard best, `gateways` (count), `dr` and `fPort`, where the object
    has nothing of this name. The frame counter goes on as the sequence number.

    Args:
        time_field: of the objects that are made.
    """

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field

    def __call__(self, message: Message) -> list[Part] | Aside:
        """See `headrace.connectors.formats.parts.Unpack`."""
        event = message.topic[-1]
        if event not in _VALUES:
            return Aside(event, message.device_id or _named(message.payload))
        document = _event(message)
        device_id = _device_id(message.device_id, document)
        sequence = None
        try:
            time_ms = _time(document.get("time"))
            if event == "up":
                sequence = _sequence(document, time_ms)
            rows = Rows(message.payload, self._time_field)
            rows.add(device_id, time_ms, _VALUES[event](document, message.payload))
            return rows.parts(sequence)
        except NotUnpacked as error:
            # The frame came through all the same.
            raise NotUnpacked(error.reason, device_id, sequence) from error


def _event(message: Message) -> dict[str, Any]:
    try:
        document = loads(message.payload)
    except NotUnpacked as error:
        advice = "" if message.payload.lstrip()[:1] in (b"", b"{") else _BINARY
        raise NotUnpacked(error.reason + advice, message.device_id) from error
    if not isinstance(document, dict):
        raise NotUnpacked(f"payload is {kind(document)}, not an event", message.device_id)
    return document


def _uplink(document: dict[str, Any], payload: bytes) -> dict[str, Any]:
    decoded = document.get("object")
    if decoded is None:
        raise NotUnpacked(_NO_OBJECT)
    if not isinstance(decoded, dict):
        raise NotUnpacked(f"object is {kind(decoded)}, not an object")
    values: dict[str, Any] = {}
    size, most = 0, most_output(payload)
    for name, value in _flat(decoded, "", 1):
        if name in values:
            raise NotUnpacked(f"object gives {name[:64]!r} twice once its nested names are joined")
        size += len(name)
        check_output(size, most)
        values[name] = value
        check_items(len(values))
    return {**_signal(document), **values}


def _flat(values: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise NotUnpacked(f"object nests deeper than {MAX_DEPTH} levels")
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}_", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _signal(document: dict[str, Any]) -> dict[str, Any]:
    """How the frame was heard."""
    found: dict[str, Any] = {}
    heard = document.get("rxInfo")
    heard = [each for each in heard if isinstance(each, dict)] if isinstance(heard, list) else []
    if heard:
        best = max(heard, key=lambda each: _number(each, "rssi"))
        found = {"rssi": _number(best, "rssi"), "snr": _number(best, "snr"), "gateways": len(heard)}
        if isinstance(best.get("gatewayId"), str):
            found["gateway"] = best["gatewayId"]
    return found | {name: _number(document, name) for name in ("dr", "fPort")}


def _status(document: dict[str, Any], payload: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {"margin": _number(document, "margin")}
    external = document.get("externalPowerSource") is True
    if external:
        values["externalPowerSource"] = True
    if not (external or document.get("batteryLevelUnavailable") is True):
        values["batteryLevel"] = _number(document, "batteryLevel")
    return values


def _location(document: dict[str, Any], payload: bytes) -> dict[str, Any]:
    location = document.get("location")
    if not isinstance(location, dict):
        raise NotUnpacked(f"location is {kind(location)}, not an object")
    values: dict[str, Any] = {name: _number(location, name) for name in ("latitude", "longitude", "altitude")}
    return values | {name: location[name] for name in ("accuracy", "source") if name in location}


_VALUES = {"up": _uplink, "status": _status, "location": _location}


def _number(document: dict[str, Any], name: str) -> Any:
    """A number; 0 where it is left out."""
    value = document.get(name, 0)
    if not is_number(value):
        raise NotUnpacked(f"{name} is {kind(value)}, not a number")
    return value


def _device_id(said: str, document: dict[str, Any]) -> str:
    """The device EUI of topic and payload, which must agree."""
    info = document.get("deviceInfo")
    eui = info.get("devEui") if isinstance(info, dict) else None
    if not isinstance(eui, str):
        return said
    if said and eui != said:
        raise NotUnpacked(f"devEui is {eui[:64]!r}, but the message came from {said!r}", said)
    return eui


def _named(payload: bytes) -> str:
    try:
        document = loads(payload)
        return _device_id("", document) if isinstance(document, dict) else ""
    except NotUnpacked:
        return ""


def _time(text: object) -> int | None:
    """An instant as protobuf writes it, with up to nine digits of a second, ms since 1970 UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise NotUnpacked(f"time is {str(text)[:64]!r}, not an ISO 8601 time with an offset from UTC")
    return (moment - _EPOCH) // _MILLISECOND


def _sequence(document: dict[str, Any], time_ms: int | None) -> bytes | None:
    return sequence_header(document.get("fCnt", 0), FRAME_COUNTERS, time_ms)
