"""What a topic profile must know of a payload before the append: its device id, and whether it is an alarm."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from headrace.connectors.topic_profile import Alarm
from headrace.schemas.topics import MAX_DEVICE_ID

_SCALARS = (str, bool, int, float)


class PayloadFields:
    """Looks up the declared fields of a payload, and decodes nothing else. Safe with any bytes.

    Args:
        device_fields: of these the first that has a text is the device id.
        alarm: which payloads are alarms; None for none.

    >>> fields = PayloadFields(["device_id"], Alarm(field="status", values=["alarm"]))
    >>> fields.read(b'{"device_id": "wall-3", "status": "alarm", "tilt_angle": 4.1}')
    (b'wall-3', True)
    """

    def __init__(self, device_fields: Sequence[str], alarm: Alarm | None) -> None:
        status = alarm.field if alarm else None
        names = dict.fromkeys([*device_fields, *([status] if status else [])])
        attributes = {name: f"f{place}" for place, name in enumerate(names)}
        document = msgspec.defstruct(
            "Document",
            [(attribute, object, None) for attribute in attributes.values()],
            rename={attribute: name for name, attribute in attributes.items()},
        )
        self._decode = msgspec.json.Decoder(document).decode if names else None
        self._device = [attributes[name] for name in device_fields]
        self._status = attributes[status] if status else None
        self._always = alarm is not None and status is None
        self._values = {each for value in alarm.values for each in _exact(value)} if alarm else set()

    def device_ids(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The device id of each payload, as `read` finds it; twice as fast where all have it in the first field."""
        if self._decode is not None and self._device:
            first = attrgetter(self._device[0])
            try:
                found = list(map(first, map(self._decode, payloads)))
                if set(map(type, found)) == {str} and all(found) and max(map(len, found)) <= MAX_DEVICE_ID:
                    return list(map(str.encode, found))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                pass  # one by one then
        return [self.read(payload)[0] for payload in payloads]

    def read(self, payload: bytes) -> tuple[bytes, bool]:
        """The device id, empty if there is none in the payload or none was asked for, and whether it is an alarm."""
        if self._decode is None:
            return b"", self._always
        try:
            document = self._decode(payload)
            device_id = self._device_id(document)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return b"", self._always
        if self._always or not self._status:
            return device_id, self._always
        value = getattr(document, self._status)
        return device_id, isinstance(value, _SCALARS) and (type(value), value) in self._values

    def _device_id(self, document: object) -> bytes:
        for attribute in self._device:
            value = getattr(document, attribute)
            if value and isinstance(value, str):
                return value[: MAX_DEVICE_ID + 1].encode()  # ingest refuses it as too long all the same
        return b""


def _exact(value: Any) -> Iterator[tuple[type, Any]]:
    """Python says that 1 is True, JSON does not; that 1 is 1.0 both say."""
    yield type(value), value
    if type(value) is int:
        yield float, value
    if type(value) is float:
        yield int, value
