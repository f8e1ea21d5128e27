"""What a payload format is: a pure function from a message to flat JSON objects, each of one device, within limits."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from headrace.schemas.units import STATED_UNITS

#: Larger payloads are not looked into, bytes; ingest's own limit is the same unless configured otherwise.
MAX_PAYLOAD_BYTES = 1 << 20
#: Entries that one message may hold: SenML records, readings of an envelope, values that nest.
MAX_ITEMS = 10_000
#: What is made of a message has at most so many times its bytes, and so many more: base names and common fields repeat.
OUTPUT_FACTOR, OUTPUT_FLOOR = 16, 64 << 10
#: In ms. Further than any date that can be written, and less than what JSON's integers end at.
_FAR = 1 << 62
_ABSENT = object()


class Message(NamedTuple):
    """A message as it came.

    Args:
        topic: levels of its MQTT topic.
        device_id: what the topic says; empty if nothing.
        payload: as sent.
        now_ms: when it was received, ms since 1970 UTC.
    """

    topic: list[str]
    device_id: str
    payload: bytes
    now_ms: int


class Part(NamedTuple):
    """One record for the log that was in a message.

    Args:
        device_id: whose; empty where the payload has it in a field.
        payload: one flat JSON object, as devices of the profile's type send.
        sequence: see `headrace.connectors.formats.sequence`; None without a number.
    """

    device_id: str
    payload: bytes
    sequence: bytes | None = None


class Aside(NamedTuple):
    """A message that says something of a device and is no reading: `event` is what."""

    event: str
    device_id: str = ""


#: A format, set up for a profile. Raises `NotUnpacked`.
Unpack = Callable[[Message], "list[Part] | Aside"]


class NotUnpacked(Exception):
    """The message is not what its format says.

    Args:
        reason: for a person: what is wrong, and what to do.
        device_id, sequence: where they are known all the same.
    """

    def __init__(self, reason: str, device_id: str = "", sequence: bytes | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.device_id = device_id
        self.sequence = sequence


class Rows:
    """Collects values of devices and times; those of the same device and time become one object.

    A value that was given before, differently, begins another object of the same device and time: ingest keeps the
    contradiction aside.

    Args:
        payload: of the message, whose size bounds what comes of it.
        time_field: name of the time in the objects, ms.
    """

    def __init__(self, payload: bytes, time_field: str) -> None:
        self._most = most_output(payload)
        self._time_field = time_field
        self._rows: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self._times: list[int | None] = []
        self._newest: dict[tuple[str, int | None], int] = {}
        self._items = 0

    def add(
        self, device_id: str, time_ms: int | None, values: Mapping[str, Any], units: Mapping[str, str] | None = None
    ) -> None:
        """Take values; without a time the device type says what becomes of them.

        Raises:
            NotUnpacked: there are too many, or one has a name that is taken.
        """
        self._items += len(values)
        check_items(self._items)
        for taken in (self._time_field, STATED_UNITS):
            if taken in values:
                raise NotUnpacked(f"a value is named {taken!r}, which is taken: set another time_field in the profile")
        key, units = (device_id, time_ms), units or {}
        place = self._newest.get(key)
        if place is not None:
            _, known, stated = self._rows[place]
            if all(_same(known, stated, name, value, units) for name, value in values.items()):
                known.update(values)
                stated.update(units)
                return
        self._newest[key] = len(self._rows)
        started = {} if time_ms is None else {self._time_field: checked_time(time_ms)}
        self._times.append(time_ms)
        self._rows.append((device_id, {**started, **values}, dict(units)))

    def parts(self, sequence: bytes | None = None) -> list[Part]:
        """The objects, the oldest first, then those without a time: what is behind another is not late for that.

        Raises:
            NotUnpacked: there is none, or they are more than a message of this size may become.
        """
        made: list[Part] = []
        size = 0
        for place in sorted(range(len(self._rows)), key=self._age):
            device_id, values, units = self._rows[place]
            part = Part(device_id, dumps({**values, STATED_UNITS: units} if units else values), sequence)
            size += len(part.payload) + len(device_id)
            check_output(size, self._most)
            made.append(part)
        if not made:
            raise NotUnpacked("it holds no values")
        return made

    def _age(self, place: int) -> int:
        time = self._times[place]
        return _FAR if time is None else time


def _same(known: Mapping[str, Any], stated: Mapping[str, str], name: str, value: Any, units: Mapping[str, str]) -> bool:
    """Whether nothing else was said under this name."""
    before = known.get(name, _ABSENT)
    if before is _ABSENT:
        return True
    return type(before) is type(value) and bool(before == value) and stated.get(name) == units.get(name)


def most_output(payload: bytes) -> int:
    """Bytes that may be made of a message."""
    return OUTPUT_FACTOR * len(payload) + OUTPUT_FLOOR


def check_output(size: int, most: int) -> None:
    """Refuse a message of which more than `most` bytes would be made."""
    if size > most:
        raise NotUnpacked(f"it unpacks to more than {most} bytes: send it in several messages, or with shorter names")


def check_items(count: int) -> None:
    """Refuse a message that holds too much."""
    if count > MAX_ITEMS:
        raise NotUnpacked(f"it holds more than {MAX_ITEMS} values: send it in several messages")


def checked_time(time_ms: int) -> int:
    """The time, if a JSON integer holds it."""
    if not -_FAR < time_ms < _FAR:
        raise NotUnpacked(f"its time is {time_ms} ms, which is none")
    return time_ms


def check_size(payload: bytes) -> None:
    """Refuse a payload that is too large to look into."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise NotUnpacked(f"payload has {len(payload)} bytes, more than the {MAX_PAYLOAD_BYTES} allowed")


def loads(payload: bytes) -> Any:
    """The JSON value in a payload.

    Raises:
        NotUnpacked: there is none.
    """
    check_size(payload)
    if not payload:
        raise NotUnpacked("payload is empty")
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise NotUnpacked(_no_json(payload) or f"payload is not JSON: {error.msg} at character {error.pos}") from error


def _no_json(payload: bytes) -> str:
    """Why bytes cannot be JSON; empty if they are a text."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return f"payload is not JSON: byte {error.start} is no UTF-8; is it binary?"
    return ""


def dumps(value: Any) -> bytes:
    """A value as JSON."""
    try:
        return orjson.dumps(value)
    except TypeError as error:  # deeper than 254 levels, or an integer of more than 64 bits
        raise NotUnpacked(f"a value cannot be written as JSON: {error}") from error


def kind(value: Any) -> str:
    """What a value is, for a person."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "bytes" if isinstance(value, bytes) else "a number")


def is_number(value: Any) -> bool:
    """Whether it is a number; true and false are none."""
    return type(value) in (int, float)
