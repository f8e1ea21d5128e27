"""A table that every worker has whole: the newest value per key of a compacted topic, and what held before."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, get_origin

import msgspec
import structlog
from pydantic import ValidationError

from headrace.engine.errors import TableFull
from headrace.engine.log import Fetched, TopicSpec
from headrace.schemas.text import shortened, why_invalid

Value = TypeVar("Value")

#: Seconds for which values are kept that were replaced.
HISTORY = 86_400.0
#: Keys that a table may hold, and replaced values beside them.
MOST = 1_000_000
#: Newest changes of which the keys are remembered, for those who look at what changed only.
MOST_RECENT = 10_000
#: Keys whose refused values are remembered, so that each is logged once.
MOST_REFUSED = 10_000
#: Characters that the log has of why.
MOST_TOLD = 500

log = structlog.get_logger(__name__)


class _Version(NamedTuple, Generic[Value]):
    """What a key has held since `time_ms`; None: nothing."""

    time_ms: int
    partition: int
    value: Value | None


class Span(NamedTuple):
    """Records of a batch for which the table says the same.

    Args:
        at_ms: what to ask the table with.
        rows: their places in the batch, ascending.
    """

    at_ms: int
    rows: Sequence[int]


def replicated_topic(name: str, history: float = HISTORY) -> TopicSpec:
    """How the topic of a replicated table is made: one partition, so that all changes have one order."""
    return TopicSpec(name, 1, compacted=True, retention=history)


class Replicated(Generic[Value]):
    """A copy of a compacted topic; only to read. An operator names those it reads as `replicas`.

    Key is the record key as text. A change applies to records whose append time is its own or later, whatever batches
    they come in, so ask for the value as of a record's append time: then a replay finds what was found live. Changes of
    one key apply in log order: one whose append time is before that of its predecessor applies with it.

    What is exact: a record is worked on after all changes that were committed before its batch was read. What is not:

    - A record that is appended while a change is being committed, or by a clock that is ahead of that of the change,
      may be worked on before the change is there; a replay finds it. `Registry` stamps changes ahead, so that this does
      not happen.
    - History goes back `history` seconds of append time before the newest change. For older records a key has the
      oldest value that is known. A topic that something else made keeps less, if its `min.compaction.lag.ms` is less.

    Memory: the newest value per key, about 300 bytes beside the value itself, and what it replaced within `history`.

    Args:
        topic: its name.
        decode: value from bytes; a type is decoded from JSON by msgspec. A value on which it raises is left out,
            counted and logged; the key keeps the one before.
        history: seconds.
        most: keys with a value, count: with more the agents that read the table wait, and `/health` says so. As many
            replaced values are kept; of more the oldest go, and history is shorter.

    >>> table = Replicated("registry.devices", bytes.decode)
    >>> table.put("hall", "door", at_ms=1_000); table.put("hall", "window", at_ms=2_000)
    >>> table.get("hall", 999), table.get("hall", 1_999), table.get("hall", 2_000)
    (None, 'door', 'window')
    """

    _entries: int
    _revision: int
    _began: int
    _newest_ms: int
    _horizon_ms: int

    def __init__(
        self,
        topic: str,
        decode: Callable[[bytes], Value] | type[Value],
        *,
        history: float = HISTORY,
        most: int = MOST,
    ) -> None:
        self.topic = topic
        is_type = isinstance(decode, type) or get_origin(decode) is not None
        self._decode: Callable[[bytes], Value] = msgspec.json.Decoder(decode).decode if is_type else decode
        self._history = history
        self._most = most
        self.start_over()

    def get(self, key: str, at_ms: int) -> Value | None:
        """The value of a key for a record appended at `at_ms`, ms since 1970 UTC; None if it had none."""
        versions = self._versions.get(key)
        return None if versions is None else self._value(versions, at_ms)

    def items(self, at_ms: int) -> Iterator[tuple[str, Value]]:
        """Every key that had a value for a record appended at `at_ms`, in no particular order."""
        for key, versions in self._versions.items():
            value = self._value(versions, at_ms)
            if value is not None:
                yield key, value

    def spans(self, timestamps: Sequence[int]) -> list[Span]:
        """Records with these append times (ms), put together where the table says the same; nearly always in one.

        For agents that work on whole columns; `at_ms` is the same for as long as the answer is, and `revision`.
        """
        if not timestamps:
            return []
        first, last = self._since(min(timestamps)), self._since(max(timestamps))
        if first == last:
            return [Span(first, range(len(timestamps)))]
        rows: dict[int, list[int]] = {}
        for row, time_ms in enumerate(timestamps):
            rows.setdefault(self._since(time_ms), []).append(row)
        return [Span(at_ms, rows[at_ms]) for at_ms in sorted(rows)]

    @property
    def entries(self) -> int:
        """Keys with a value now, count."""
        return self._entries

    @property
    def replaced(self) -> int:
        """Changes whose predecessors may still be kept, count."""
        return len(self._replaced)

    @property
    def revision(self) -> int:
        """Another one after every change."""
        return self._revision

    def changed_since(self, revision: int) -> list[str] | None:
        """Keys that were changed since the table had this `revision`; None if that is not known: look at all."""
        count = self._revision - revision
        if not 0 <= count <= len(self._recent) or revision < self._began:
            return None
        return list(dict.fromkeys(islice(reversed(self._recent), count)))

    def keys(self) -> list[str]:
        """Every key that has, or had, a value, as far as that is kept."""
        return list(self._versions)

    def versions(self, key: str) -> list[tuple[int, Value | None]]:
        """What a key has held, as far as that is kept, the oldest first: since when, ms, and what; None: nothing."""
        return [(each.time_ms, each.value) for each in self._versions.get(key, ())]

    def later(self, at_ms: int) -> list[tuple[int, str]]:
        """Append times after this one at which keys change, ascending; nearly always none, and cheap then."""
        if not self._moments or self._moments[-1] <= at_ms:
            return []
        return sorted(
            (each.time_ms, key) for key, versions in self._versions.items() for each in versions if each.time_ms > at_ms
        )

    def put(self, key: str, value: Value | None, *, at_ms: int, partition: int = 0) -> None:
        """A key has this value from `at_ms` on; None: no value any more. For tests; the app does it by `take`."""
        versions = self._versions.setdefault(key, [])
        before = versions[-1].value if versions else None
        at_ms = max([at_ms, *(each.time_ms for each in versions if each.partition == partition)])
        version = _Version(at_ms, partition, value)
        place = bisect_right(versions, version[:2], key=lambda each: each[:2])
        if place and versions[place - 1][:2] == version[:2]:
            versions[place - 1] = version
        else:
            versions.insert(place, version)
        self._entries += (versions[-1].value is not None) - (before is not None)
        if len(versions) > 1 or value is None:
            self._replaced.append((at_ms, key))
        known = bisect_right(self._moments, at_ms)
        if not known or self._moments[known - 1] != at_ms:
            insort(self._moments, at_ms)
        self._newest_ms = max(self._newest_ms, at_ms)
        self._horizon_ms = max(self._horizon_ms, self._newest_ms - round(self._history * 1000))
        self._revision += 1
        self._recent.append(key)

    # -- for `headrace.engine.replicas`

    def spec(self) -> TopicSpec:
        """See `headrace.engine.replicas.Replica`."""
        return replicated_topic(self.topic, self._history)

    def take(self, changes: Fetched) -> int:
        """See `headrace.engine.replicas.Replica`."""
        refused = 0
        target, records = changes.target, changes.records
        for index, (key, data) in enumerate(zip(records.keys, records.values, strict=True)):
            try:
                name = (key or b"").decode()
                value = None if data is None else self._decode(data)
            except Exception as error:  # whatever a decoder raises, the value is none
                refused += 1
                self._note(key or b"", target.partition, changes.offset(index), error)
                continue
            self._refused.discard(key or b"")
            self.put(name, value, at_ms=records.timestamps[index], partition=target.partition)
        self._drop_old()
        if self._entries > self._most:
            raise TableFull(
                f"topic {self.topic} has more than {self._most:,} keys; "
                "delete some, or make the table with a larger `most`"
            )
        return refused

    def start_over(self) -> None:
        """See `headrace.engine.replicas.Replica`."""
        self._versions: dict[str, list[_Version[Value]]] = {}
        #: (append time, key) of changes that replaced or deleted something, to find what is too old.
        self._replaced: deque[tuple[int, str]] = deque()
        #: Append times of changes, ascending.
        self._moments: list[int] = []
        self._refused: set[bytes] = set()
        self._newest_ms = 0
        #: What held before is not known for certain.
        self._horizon_ms = -round(self._history * 1000)
        self._entries = 0
        # Never one that it had: whoever looks at changes since then has to look at all.
        self._revision = self._began = getattr(self, "_revision", -1) + 1
        self._recent: deque[str] = deque(maxlen=MOST_RECENT)

    def _value(self, versions: list[_Version[Value]], at_ms: int) -> Value | None:
        if versions[-1].time_ms <= at_ms:
            return versions[-1].value
        place = bisect_right(versions, at_ms, key=lambda each: each.time_ms)
        if place:
            return versions[place - 1].value
        return versions[0].value if at_ms < self._horizon_ms else None

    def _since(self, at_ms: int) -> int:
        """The least append time for which the table says the same as for this one."""
        if at_ms < self._horizon_ms:
            return self._horizon_ms - 1
        place = bisect_right(self._moments, at_ms)
        return max(self._horizon_ms, self._moments[place - 1] if place else 0)

    def _drop_old(self) -> None:
        """Forget what was replaced before the horizon, or is too much."""
        while self._replaced and (len(self._replaced) > self._most or self._replaced[0][0] < self._horizon_ms):
            time_ms, key = self._replaced.popleft()
            self._horizon_ms = max(self._horizon_ms, time_ms)
            versions = self._versions.get(key, [])
            while len(versions) > 1 and versions[1].time_ms <= time_ms:
                del versions[0]
            if len(versions) == 1 and versions[0].value is None and versions[0].time_ms <= time_ms:
                del self._versions[key]
        del self._moments[: bisect_right(self._moments, self._horizon_ms)]

    def _note(self, key: bytes, partition: int, offset: int, error: Exception) -> None:
        if key in self._refused or len(self._refused) >= MOST_REFUSED:
            return
        self._refused.add(key)
        place: dict[str, Any] = {"topic": self.topic, "partition": partition, "offset": offset}
        why = why_invalid(error) if isinstance(error, ValidationError) else str(error)
        name = shortened(key.decode(errors="replace"))
        log.warning("replica_value_refused", key=name, error=shortened(why, MOST_TOLD), **place)
