"""The newest records of each partition, kept in memory: a consumer that keeps up never touches the file."""

from collections import deque
from typing import NamedTuple

from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records

#: Kept per partition; a slower consumer reads from the file.
MAX_TAIL_RECORDS = 10_000
MAX_TAIL_BYTES = 8 << 20


class _Part(NamedTuple):
    fetched: Fetched
    size: int


class Tail:
    """Per partition the last appended batches, without gaps between them.

    Args:
        max_records, max_bytes: kept per partition; the newest batch is kept whatever its size.
    """

    def __init__(self, max_records: int = MAX_TAIL_RECORDS, max_bytes: int = MAX_TAIL_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._parts: dict[TopicPartition, deque[_Part]] = {}
        self._bytes: dict[TopicPartition, int] = {}

    def put(self, fetched: Fetched, size: int) -> None:
        """Remember what was appended, `size` bytes. A gap (others appended in between) drops what was before."""
        target = fetched.target
        parts = self._parts.setdefault(target, deque())
        if parts and parts[-1].fetched.next_offset != fetched.base_offset:
            parts.clear()
        total = size + (self._bytes[target] if parts else 0)
        parts.append(_Part(fetched, size))
        while len(parts) > 1 and (
            total > self._max_bytes or fetched.next_offset - parts[0].fetched.base_offset > self._max_records
        ):
            total -= parts.popleft().size
        self._bytes[target] = total

    def get(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        """Records from `offset` on if they are all here; None says: read the file."""
        parts = self._parts.get(target)
        if not parts or not parts[0].fetched.base_offset <= offset < parts[-1].fetched.next_offset:
            return None
        chosen: list[Fetched] = []
        total = 0
        for part, _ in parts:
            if part.next_offset <= offset:
                continue
            chosen.append(part)
            total += part.next_offset - max(part.base_offset, offset)
            if total >= max_records:
                break
        if len(chosen) == 1 and chosen[0].base_offset == offset:
            return chosen[0]
        pieces = [part.records for part in chosen]
        if chosen[0].base_offset < offset:
            pieces[0] = pieces[0].slice(offset - chosen[0].base_offset, len(pieces[0]))
        return Fetched(target, offset, chosen[-1].next_offset, Records.concat(pieces))
