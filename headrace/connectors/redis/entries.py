"""What the cache holds: entries as JSON documents under keys of their own, with the time that they are true of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from headrace.connectors.redis.settings import RedisSettings
from headrace.engine.clock import Clock
from headrace.schemas.window import duration

#: Where an entry came from that the verifier made from the database: no place in the log.
FROM_DATABASE = (-1, -1)

Order = tuple[int, int]
Place = tuple[int, int]


class Entry(NamedTuple):
    """One entry.

    Args:
        key: of Redis.
        as_of: time of the data, ms since 1970 UTC: event time of a reading; of a rollup the end of its window, or the
            time until which readings are in it where it is open.
        order: which of two entries is newer: (`as_of`, 0) of a status, (start, revision) of a rollup.
        place: partition and offset of its record, or FROM_DATABASE.
        body: the document, but for these.
    """

    key: bytes
    as_of: int
    order: Order
    place: Place
    body: Mapping[str, Any]

    def value(self) -> bytes:
        """The document. `scripts` reads its beginning: the order of the fields matters.

        Raises:
            TypeError: something in it cannot be JSON.
        """
        partition, offset = self.place
        head = {"asOf": self.as_of, "partition": partition, "offset": offset}
        return orjson.dumps(head | dict(self.body))


class Keys:
    """Names of keys, and how long what is under them lives."""

    def __init__(self, settings: RedisSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.prefix = settings.prefix

    def status(self, device_id: str) -> bytes:
        """Of the newest reading of a device.

        Raises:
            ValueError: no text that has bytes.
        """
        return f"{self.prefix}:status:{device_id}".encode()

    def rollup(self, device_id: str, window: str) -> bytes:
        """Of the newest window of a device. No name of a window has a colon.

        Raises:
            ValueError: no text that has bytes.
        """
        return f"{self.prefix}:rollup:{device_id}:{window}".encode()

    def positions(self, sink: str) -> bytes:
        """Of the hash with the positions of a sink."""
        return f"{self.prefix}:positions:{sink}".encode()

    def _ttl_ms(self, key: bytes) -> int:
        status = key.startswith(f"{self.prefix}:status:".encode())
        return round(1000 * (self._settings.status_ttl if status else self._settings.rollup_ttl))

    def left_ms(self, key: bytes, as_of: int) -> int:
        """Real milliseconds that an entry has still to live; 0 or less: it has expired."""
        return int(self._clock.real_seconds(as_of + self._ttl_ms(key) - self._clock.now_ms()) * 1000)

    def oldest_status(self) -> int:
        """Statuses of this time have just expired, ms since 1970 UTC."""
        return self._clock.now_ms() - round(self._settings.status_ttl * 1000)

    def oldest_rollup(self) -> int:
        """Rollups of this time have just expired, ms since 1970 UTC."""
        return self._clock.now_ms() - round(self._settings.rollup_ttl * 1000)


def status_entry(
    keys: Keys, device_id: str, device_type: str, time: int, metrics: Mapping[str, Any], place: Place
) -> Entry:
    """The status of a device."""
    body = {"deviceId": device_id, "deviceType": device_type, "metrics": metrics}
    return Entry(keys.status(device_id), time, (time, 0), place, body)


def rollup_entry(keys: Keys, document: Mapping[str, Any], as_of: int, place: Place) -> Entry:
    """A rollup, from a document of `telemetry.rollups`."""
    order = (document["start"], document.get("revision", 0))
    body = {
        "start": order[0],
        "revision": order[1],
        "end": document["end"],
        "deviceId": document["device_id"],
        "deviceType": document["device_type"],
        "window": document["window"],
        "measures": document["measures"],
    }
    return Entry(keys.rollup(document["device_id"], document["window"]), as_of, order, place, body)


def rollup_as_of(kind: str | None, end: int, known_until: int) -> int:
    """What a rollup is true of: its window's end, or what was known when it was sent while the window was open."""
    return min(end, known_until) if kind == "update" else end


def window_of(window: str | None, seconds: float | None) -> str:
    """The window's name; records from before there were several kinds have its length alone.

    Raises:
        ValueError: it has neither.
    """
    if window is not None:
        return window
    if seconds is None:
        raise ValueError("a rollup has neither window nor window_seconds")
    return duration(round(seconds * 1000))
