"""The cache among the services of `headrace sink`: its sink and its verifier, each in its own time."""

from collections.abc import Mapping
from typing import Any

from headrace.cli.settings import Settings
from headrace.connectors.redis.sink import MAX_RECORDS, RedisSink
from headrace.connectors.redis.verifier import CacheVerifier
from headrace.engine.clock import Clock
from headrace.engine.log import Log
from headrace.engine.metrics import Metrics
from headrace.engine.sink_runner import SinkRunner


def cache_services(
    settings: Settings, log: Log, database: Mapping[str, Any], clock: Clock, metrics: Metrics
) -> list[SinkRunner | CacheVerifier]:
    """What runs where `[redis] url` is set; each has `async run(stop)`.

    Args:
        settings: of everything.
        log: where records come from.
        database: keyword arguments for `asyncpg.connect`, for the verifier alone.
        clock: the one that agents and sinks have.
        metrics: for both.
    """
    if settings.redis.url is None:
        return []
    sink = RedisSink(settings.redis, log, clock, metrics=metrics)
    return [
        SinkRunner(log, sink, clock, metrics=metrics, max_records=MAX_RECORDS),
        CacheVerifier(settings.redis, database, settings.rollup.kinds(), clock, metrics=metrics),
    ]
