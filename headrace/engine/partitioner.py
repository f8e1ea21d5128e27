"""Which partition a key belongs to: murmur2, bit for bit as Kafka's Java client computes it."""

from collections.abc import Sequence

#: Keys remembered per partitioner; at the limit the memory starts over. About 150 bytes each.
MAX_CACHED_KEYS = 1_000_000


class Partitioner:
    """Maps keys to partitions and remembers the answers: a look-up is far quicker than murmur2 in Python.

    >>> Partitioner(4).partition(b"sensor-1")
    1
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._known: dict[bytes, int] = {}

    def partition(self, key: bytes) -> int:
        """The partition of `key`, from 0."""
        known = self._known.get(key)
        if known is None:
            from aiokafka.partitioner import murmur2  # noqa: PLC0415 - brings all of aiokafka, for who writes

            if len(self._known) >= MAX_CACHED_KEYS:
                self._known.clear()
            known = self._known[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        return known

    def split(self, keys: Sequence[bytes]) -> dict[int, list[int]]:
        """Rows by partition, in order; `rows[p]` are the indices of the keys that belong to p."""
        try:
            numbers = list(map(self._known.__getitem__, keys))
        except KeyError:
            numbers = list(map(self.partition, keys))
        rows: list[list[int]] = [[] for _ in range(self.partitions)]
        for row, number in enumerate(numbers):
            rows[number].append(row)
        return {number: mine for number, mine in enumerate(rows) if mine}
