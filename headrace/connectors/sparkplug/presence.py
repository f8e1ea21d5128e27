"""Births and deaths of nodes and devices, as `devices.presence` has them."""

from collections.abc import Sequence

from headrace.connectors.sparkplug.session import Life
from headrace.engine.log import Append, TopicPartition
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.presence import Presence


def presence_appends(partitioner: Partitioner, lives: Sequence[Life]) -> list[Append]:
    """The appends that tell of these, in order per device. The client id is the edge node's descriptor."""
    keys = [life.device_id.encode() for life in lives]
    values = [_event(life).model_dump_json(exclude_none=True).encode() for life in lives]
    times = [life.time_ms for life in lives]
    return [
        Append(
            TopicPartition(topics.PRESENCE, partition),
            Records([keys[row] for row in rows], [values[row] for row in rows], [times[row] for row in rows]),
        )
        for partition, rows in partitioner.split(keys).items()
    ]


def _event(life: Life) -> Presence:
    return Presence(
        device_id=life.device_id,
        client_id=life.edge,
        state=life.state,
        time=life.time_ms,
        connection_id=life.connection,
        reason=life.reason,
    )
