"""Topic names and topic filters (4.7)."""

from functools import lru_cache

from headrace.connectors.mqtt.codec.cursor import decoded
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason

#: Prefix of a shared subscription, MQTT 5 (4.8.2).
SHARE = "$share/"
#: Bytes of a topic that is remembered; others up to 64 KiB are not, lest somebody fills the memory with them.
LONGEST_REMEMBERED = 512


def check_topic(topic: bytes) -> None:
    """Check a topic name: UTF-8, not empty, without wildcards. Remembers short ones that passed.

    Raises:
        BadPacket: it is none.
    """
    if len(topic) <= LONGEST_REMEMBERED:
        _check_short_topic(topic)
    else:
        _check_topic(topic)


def _check_topic(topic: bytes) -> None:
    text = decoded(topic)
    if not text or "+" in text or "#" in text:
        raise BadPacket(Reason.TOPIC_NAME_INVALID, f"topic name {text[:100]!r}")


_check_short_topic = lru_cache(1 << 16)(_check_topic)


def check_filter(name: str) -> None:
    """Check a topic filter, a shared one included.

    Raises:
        BadPacket: it is none.
    """
    inner = name
    if name.startswith(SHARE):
        group, found, inner = name[len(SHARE) :].partition("/")
        if not group or not found or "+" in group or "#" in group:
            raise BadPacket(Reason.TOPIC_FILTER_INVALID, f"shared subscription {name[:100]!r}")
    levels = inner.split("/")
    wrong = any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels)
    if not inner or wrong or "#" in levels[:-1]:
        raise BadPacket(Reason.TOPIC_FILTER_INVALID, f"topic filter {name[:100]!r}")


def matches(name: str, topic: str) -> bool:
    """Whether topic filter `name`, not a shared one, takes `topic`.

    >>> matches("sport/+/player1/#", "sport/tennis/player1"), matches("#", "$SYS/uptime")
    (True, False)
    """
    wanted, given = name.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(given) or level not in ("+", given[place]):
            return False
    return len(wanted) == len(given)
