"""Compares an entry of the cache with what the database says of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson

from headrace.connectors.redis.database import Stored
from headrace.connectors.redis.entries import FROM_DATABASE, Keys, Order, Place
from headrace.schemas import topics

#: equal: as in the database. stale: older than the database's, or older than an entry may be. wrong: as new but with
#: other content, or newer than the database's newest, or of what the database does not have, although the database has
#: stored the log up to its record and beyond; or no entry at all. ahead: likewise, but the database has not got there.
Finding = Literal["equal", "missing", "stale", "wrong", "ahead"]

#: By topic and partition, how much of the log the database has.
Positions = Mapping[tuple[str, int], int]
#: Fields that say where an entry is from, and not what it says.
_ORIGIN = ("asOf", "partition", "offset")


class Cached(NamedTuple):
    """An entry as Redis has it; `document` is None where its value is none of ours."""

    key: bytes
    value: bytes
    document: Mapping[str, Any] | None

    @classmethod
    def read(cls, keys: Keys, key: bytes, value: bytes) -> "Cached":
        """From a key and its value."""
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            return cls(key, value, None)
        return cls(key, value, found if _is_entry(keys, key, found) else None)

    @property
    def is_rollup(self) -> bool:
        """Whether it is a rollup."""
        return self.document is not None and "window" in self.document

    @property
    def order(self) -> Order:
        """See `entries.Entry`."""
        assert self.document is not None
        return (self.document["start"], self.document["revision"]) if self.is_rollup else (self.document["asOf"], 0)

    @property
    def place(self) -> Place:
        """See `entries.Entry`."""
        assert self.document is not None
        return self.document["partition"], self.document["offset"]


def judge(cached: Cached, stored: Stored | None, positions: Positions, left_ms: int) -> Finding:
    """What to say of an entry.

    Args:
        cached: read before `positions`.
        stored: the database's, read after `positions`; None where it has none.
        positions: how far the database is.
        left_ms: how long the entry has to live by its own time.
    """
    if cached.document is None:
        return "wrong"
    if left_ms <= 0 or (stored is not None and cached.order < stored.entry.order):
        return "stale"
    if stored is not None and cached.order == stored.entry.order:
        if _content(cached.document) == _content(orjson.loads(stored.entry.value())):
            return "equal"
        if stored.offset > cached.place[1] >= 0:
            return "stale"
    return "wrong" if _caught_up(cached, positions) else "ahead"


def _caught_up(cached: Cached, positions: Positions) -> bool:
    """Whether the database has stored the record that the entry is from."""
    if cached.place == FROM_DATABASE:
        return True
    partition, offset = cached.place
    topic = topics.ROLLUPS if cached.is_rollup else topics.READINGS
    return positions.get((topic, partition), 0) > offset


def _content(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in document.items() if name not in _ORIGIN}


def _is_entry(keys: Keys, key: bytes, found: Any) -> bool:
    """Whether a document can be the one of this key."""
    if not isinstance(found, dict):
        return False
    if not all(type(found.get(name)) is int for name in _ORIGIN):
        return False
    if not all(isinstance(found.get(name), str) for name in ("deviceId", "deviceType")):
        return False
    try:
        if "window" not in found:
            return key == keys.status(found["deviceId"])
        numbers = all(type(found.get(name)) is int for name in ("start", "revision"))
        return numbers and isinstance(found["window"], str) and key == keys.rollup(found["deviceId"], found["window"])
    except ValueError:
        return False
