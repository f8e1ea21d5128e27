"""The newest records of all partitions, kept in memory: a consumer that keeps up never touches the file."""

from collections import deque
from typing import NamedTuple

from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records

#: Kept in all; a slower consumer reads from the file.
MAX_TAIL_BYTES = 16 << 20
#: What a record, and a batch of them, take in memory besides their bytes in the file: Python's objects.
RECORD_BYTES, BATCH_BYTES = 200, 1_000


class _Part(NamedTuple):
    fetched: Fetched
    size: int


class Tail:
    """Per partition the last appended batches, without gaps between them.

    The oldest batch goes first, whatever partition it is of. With a bound for each partition instead, those with little
    to do would go on growing for hours, and memory would grow with the number of partitions.

    Args:
        max_bytes: of memory, about; the newest batch is kept whatever its size.
    """

    def __init__(self, max_bytes: int = MAX_TAIL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: dict[TopicPartition, deque[_Part]] = {}
        #: The partition of each part, oldest first; those of one partition are in the order that they have there.
        self._order: deque[TopicPartition] = deque()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Of memory that is taken, about."""
        return self._bytes

    def put(self, fetched: Fetched, size: int) -> None:
        """Remember what was appended, `size` bytes. A gap (others appended in between) drops what was before."""
        target = fetched.target
        parts = self._parts.setdefault(target, deque())
        if parts and parts[-1].fetched.next_offset != fetched.base_offset:
            self._bytes -= sum(part.size for part in parts)
            parts.clear()
            self._order = deque(each for each in self._order if each != target)
        part = _Part(fetched, size + RECORD_BYTES * len(fetched.records) + BATCH_BYTES)
        parts.append(part)
        self._order.append(target)
        self._bytes += part.size
        while self._bytes > self._max_bytes and len(self._order) > 1:
            self._bytes -= self._parts[self._order.popleft()].popleft().size

    def get(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        """Records from `offset` on if they are all here; None says: read the file."""
        parts = self._parts.get(target)
        if not parts or not parts[0].fetched.base_offset <= offset < parts[-1].fetched.next_offset:
            return None
        wanted: list[Fetched] = []
        for part, _ in reversed(parts):  # who keeps up wants the last ones
            if part.next_offset <= offset:
                break
            wanted.append(part)
        chosen: list[Fetched] = []
        total = 0
        while wanted and (not chosen or total < max_records):
            chosen.append(wanted.pop())
            total += chosen[-1].next_offset - max(chosen[-1].base_offset, offset)
        if len(chosen) == 1 and chosen[0].base_offset == offset:
            return chosen[0]
        pieces = [part.records for part in chosen]
        if chosen[0].base_offset < offset:
            pieces[0] = pieces[0].slice(offset - chosen[0].base_offset, len(pieces[0]))
        return Fetched(target, offset, chosen[-1].next_offset, Records.concat(pieces))
