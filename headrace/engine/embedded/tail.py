"""The newest records of each partition, kept in memory: a consumer that keeps up never touches the file."""

from collections import deque

from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.records import Records

#: Records kept per partition; a slower consumer reads from the file.
MAX_TAIL_RECORDS = 10_000


class Tail:
    """Per partition the last appended batches, without gaps between them."""

    def __init__(self, max_records: int = MAX_TAIL_RECORDS) -> None:
        self._max_records = max_records
        self._parts: dict[TopicPartition, deque[Fetched]] = {}

    def put(self, fetched: Fetched) -> None:
        """Remember what was just appended. A gap (somebody else appended in between) drops what was before it."""
        parts = self._parts.setdefault(fetched.target, deque())
        if parts and parts[-1].next_offset != fetched.base_offset:
            parts.clear()
        parts.append(fetched)
        while len(parts) > 1 and fetched.next_offset - parts[0].base_offset > self._max_records:
            parts.popleft()

    def get(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None:
        """Records from `offset` on if they are all here; None says: read the file."""
        parts = self._parts.get(target)
        if not parts or not parts[0].base_offset <= offset < parts[-1].next_offset:
            return None
        chosen: list[Fetched] = []
        total = 0
        for part in parts:
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
