"""What the cache has of one device."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from headrace.connectors.redis.client import close, connect, translated
from headrace.connectors.redis.entries import Keys
from headrace.connectors.redis.judge import Cached
from headrace.connectors.redis.settings import RedisSettings
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError

#: Entries that one SCAN looks at.
SCANNED = 1_000


class CachedEntry(NamedTuple):
    """One entry.

    Args:
        key: of Redis.
        expires_in: seconds until it expires; None where it has no time to live.
        document: as it is.
    """

    key: str
    expires_in: float | None
    document: Mapping[str, Any]


async def contents(settings: RedisSettings, device_id: str, clock: Clock) -> list[CachedEntry]:
    """Everything of one device, its status first. Goes through all keys: for people, not for programs.

    Raises:
        ConfigError: the client is not installed, or the id is none.
        Disconnected, RetryLater: Redis does not answer now.
    """
    keys = Keys(settings, clock)
    try:
        names = [keys.status(device_id)]
    except ValueError as error:
        raise ConfigError(f"{device_id!a} is no device id") from error
    redis = connect(settings, "headrace-cache")
    try:
        with translated():
            rollups = keys.rollup(_escaped(device_id), "*")
            names += sorted([cast(bytes, each) async for each in redis.scan_iter(match=rollups, count=SCANNED)])
            values = cast(list[bytes | None], await redis.mget(names))
            found = []
            for name, value in zip(names, values, strict=True):
                cached = None if value is None else Cached.read(keys, name, value)
                # The pattern also finds windows of "a:b" for "a".
                if cached is not None and cached.document is not None and cached.document["deviceId"] == device_id:
                    left_ms = await redis.pttl(name)
                    left = left_ms / 1000 if left_ms >= 0 else None
                    found.append(CachedEntry(name.decode(), left, cached.document))
    finally:
        await close(redis)
    return found


def _escaped(text: str) -> str:
    """`text` as a pattern that finds nothing else."""
    return "".join(f"\\{each}" if each in "*?[]^-\\" else each for each in text)
