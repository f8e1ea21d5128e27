"""What a topic profile must know of a payload before the append: its device id, and whether it is an alarm."""

from collections.abc import Sequence

import msgspec

from headrace.connectors.topic_profile import Alarm
from headrace.schemas.topics import MAX_DEVICE_ID


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
        self._values = {_exact(value) for value in alarm.values} if alarm else set()

    def read(self, payload: bytes) -> tuple[bytes, bool]:
        """The device id, empty if there is none in the payload or none was asked for, and whether it is an alarm."""
        if self._decode is None:
            return b"", self._always
        try:
            document = self._decode(payload)
            device_id = self._device_id(document).encode()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return b"", self._always
        if self._always or not self._status:
            return device_id, self._always
        value = getattr(document, self._status)
        return device_id, isinstance(value, str | bool | int | float) and _exact(value) in self._values

    def _device_id(self, document: object) -> str:
        for attribute in self._device:
            value = getattr(document, attribute)
            if value and isinstance(value, str):
                return value[: MAX_DEVICE_ID + 1]  # ingest refuses it as too long all the same
        return ""


def _exact(value: str | float) -> tuple[bool, str | float]:
    """Python says that 1 is True; JSON does not."""
    return isinstance(value, bool), value
