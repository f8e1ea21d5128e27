"""Records that a sink can never store, as the log dropped them before: said loudly, once."""

from collections.abc import Mapping

import structlog

from headrace.engine.health import Health
from headrace.engine.log import Log, TopicPartition
from headrace.engine.log_range import first_offsets
from headrace.engine.metrics import Metrics

logger = structlog.get_logger(__name__)


class SinkLosses:
    """Compares where a sink continues with what the log still has.

    A store that was restored to an earlier state continues earlier, and so does one that was down for longer than the
    log keeps records. What the log has dropped in between is lost to it. Who never stored anything has lost nothing: it
    begins at the oldest record, and only a note says so.

    Args:
        log: asked for the oldest records.
        sink: its name.
        metrics, health: told.
    """

    def __init__(self, log: Log, sink: str, metrics: Metrics, health: Health | None) -> None:
        self._log = log
        self._sink = sink
        self._metrics = metrics
        self._health = health
        self._said: dict[TopicPartition, int] = {}
        self._back: dict[TopicPartition, int] = {}
        #: Offsets lost, as far as this process knows; count.
        self.lost = 0

    async def look(self, stored: Mapping[TopicPartition, int], committed: Mapping[TopicPartition, int]) -> None:
        """Say what is lost; each offset once.

        Args:
            stored: where the sink continues.
            committed: where it was by the log's own copy of its positions, which is never ahead of a store that was
                not restored.
        """
        firsts: dict[TopicPartition, int] = {}
        # A compacted topic drops what was replaced: nothing is lost by that.
        ordinary = {spec.name for spec in await self._log.topics() if not spec.compacted}
        for topic in sorted({target.topic for target in stored} & ordinary):
            firsts |= await first_offsets(self._log, topic)
        for target, position in sorted(stored.items()):
            before, first = committed.get(target, 0), firsts.get(target, 0)
            where = {"sink": self._sink, "topic": target.topic, "partition": target.partition}
            if position < before and self._back.get(target) != position:
                self._back[target] = position
                logger.warning("sink_goes_back", **where, position=position, was=before)
            begin = max(position, self._said.get(target, 0))
            if first <= begin:
                continue
            self._said[target] = first
            if position or before:
                self._say(target, first - begin, where)
            else:
                logger.info("sink_begins_late", **where, position=first)

    def _say(self, target: TopicPartition, count: int, where: Mapping[str, object]) -> None:
        self.lost += count
        remedy = "restore a newer backup of the database, or accept that they are missing"
        logger.error("sink_records_lost", **where, offsets=count, remedy=remedy)
        self._metrics.count("headrace_sink_lost_offsets_total", count, sink=self._sink, topic=target.topic)
        if self._health is not None:
            what = f"{self.lost:,} offsets were dropped by the log before sink {self._sink} stored them"
            self._health.broken(
                f"sink {self._sink} records lost", what, f"{remedy}; it is said until the process starts again"
            )
