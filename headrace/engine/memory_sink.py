"""A sink in memory, for tests and for trying an application in a shell."""

from collections.abc import Callable, Sequence

from headrace.engine.errors import Disconnected
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Record
from headrace.engine.sink import PositionMoved, Refused


class MemorySink:
    """Keeps records in lists, and the promises of `Sink`: a write is all or nothing, positions are compared and set.

    Args:
        name: positions are kept under it.
        topics: what it reads.
        refuses: says which records it will never take.

    Attributes:
        stored: records by partition, in log order.
        store: the positions; assign to restore an earlier state.
        down: while true, everything raises `Disconnected`.
        writes: records per write that went well, count.
    """

    def __init__(
        self, name: str, topics: Sequence[str], *, refuses: Callable[[Record], bool] = lambda record: False
    ) -> None:
        self.name = name
        self.topics = topics
        self.stored: dict[TopicPartition, list[Record]] = {}
        self.store: dict[TopicPartition, int] = {}
        self.down = False
        self.writes: list[int] = []
        self._refuses = refuses
        self._positions: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        self._check()

    async def positions(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._check()
        self._positions = {target: self.store.get(target, 0) for target in targets}
        return dict(self._positions)

    async def write(self, fetched: Sequence[Fetched]) -> None:
        self._check()
        for part in fetched:
            if self.store.get(part.target, 0) != self._positions.get(part.target, 0):
                raise PositionMoved(f"{part.target.topic}/{part.target.partition} was written by somebody else", 0.0)
            if any(self._refuses(record) for record in part.records):
                raise Refused("a record is not to the taste of this sink")
        for part in fetched:
            self.stored.setdefault(part.target, []).extend(part.records)
            self.store[part.target] = self._positions[part.target] = part.next_offset
        self.writes.append(sum(len(part.records) for part in fetched))

    async def close(self) -> None:
        """Nothing to let go of."""

    def _check(self) -> None:
        if self.down:
            raise Disconnected(f"sink {self.name} is down")
