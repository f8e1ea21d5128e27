"""The message ledger: accepted = stored + duplicate + conflict + dead-lettered + in flight, at rest, always."""

from collections.abc import Mapping
from typing import NamedTuple

from headrace.engine.log import Log, TopicPartition
from headrace.schemas import topics


class Ledger(NamedTuple):
    """Messages, by what became of them. All terms are counts.

    accepted: appended to `telemetry.raw`, counted by the appending transaction.
    stored: rows that the sink's transactions wrote or completed.
    duplicate, conflict: decided by ingest within its horizon, by the sink beyond it.
    dead_lettered: in `telemetry.dlq`, counted by the appending transaction.
    in_flight: appended but not yet ingested, and ingested but not yet stored, from offsets.
    """

    accepted: int
    stored: int
    duplicate: int
    conflict: int
    dead_lettered: int
    in_flight: int

    @property
    def difference(self) -> int:
        """Accepted less the sum of what became of the messages; 0 when the ledger balances."""
        return self.accepted - (self.stored + self.duplicate + self.conflict + self.dead_lettered + self.in_flight)


async def read_ledger(
    log: Log, group: str, sink_group: str, decided: Mapping[str, int], sunk: Mapping[str, int]
) -> Ledger:
    """Add up the terms.

    Args:
        group, sink_group: consumer groups of the agents and of the sink that stores readings.
        decided: `duplicate` and `conflict` of ingest's counters.
        sunk: `stored`, `duplicate` and `conflict` of the sink's own ledger.
    While messages move the terms are of slightly different instants; at rest they balance exactly.
    """
    in_flight = await lag(log, group, topics.RAW) + await lag(log, sink_group, topics.READINGS)
    return Ledger(
        accepted=sum((await log.tallies(topics.RAW)).values()),
        stored=sunk.get("stored", 0),
        duplicate=decided.get("duplicate", 0) + sunk.get("duplicate", 0),
        conflict=decided.get("conflict", 0) + sunk.get("conflict", 0),
        dead_lettered=sum((await log.tallies(topics.DEAD_LETTERS)).values()),
        in_flight=in_flight,
    )


async def lag(log: Log, group: str, topic: str) -> int:
    """Records of `topic` that `group` has not passed."""
    ends = await log.end_offsets(topic)
    positions: dict[TopicPartition, int] = await log.positions(group, topic)
    return sum(end - positions[target] for target, end in ends.items())
