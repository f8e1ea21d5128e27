"""Faust's table for agents that go event by event: its changes are staged with the event, its changelog is ours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import faust
import structlog
from faust.exceptions import DecodeError
from faust.types import CodecArg
from faust.types.tuples import FutureMessage, Message, PendingMessage

from headrace.engine.errors import ConfigError
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.events import LogUnit, State, current_unit

#: A value of these types cannot be changed in place: the value that a key had can be kept as it is.
IMMUTABLE = (type(None), bool, int, float, str, bytes, Decimal, date, datetime)

_MISSING = object()

log_ = structlog.get_logger()


class PartitionTaken(Exception):
    """The partition of the event in hand was taken away: what the agent does with it has no effect any more."""


class EventTable(faust.Table):  # type: ignore[type-arg]
    """A Faust table, plain or windowed, kept in memory and in a compacted changelog.

    What an event changes takes effect with that event's other effects, in the commit of its position, and is taken back
    when the agent raises. A key belongs to the partition whose events write it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._states: dict[str, TableState] = {}
        self._partition_of: dict[Any, int] = {}
        self._encoded: dict[Any, bytes] = {}
        self._warned = False

    @property
    def writers(self) -> set[str]:
        """Topics whose events have written here since the start."""
        return {topic for topic, state in self._states.items() if state.written}

    def state_for(self, topic: str) -> "TableState":
        """What events of `topic` do to this table."""
        return self._states.setdefault(topic, TableState(self, topic))

    # -- Faust's interface

    def partition_for_key(self, key: Any) -> int | None:
        unit = current_unit.get()
        if isinstance(unit, LogUnit):
            target = unit.delivery.fetched.target
            self._verify_source_topic_partitions(target.topic)
            return target.partition
        if unit is not None and not self.app.started:
            return 0  # an agent in Faust's test context
        raise TypeError(f"table {self.name} can be changed only by an agent that has an event of a topic in hand")

    def send_changelog(
        self,
        partition: int | None,
        key: Any,
        value: Any,
        key_serializer: CodecArg | None = None,
        value_serializer: CodecArg | None = None,
    ) -> FutureMessage:
        """Stage a change; Faust calls this just before it changes the key."""
        unit = current_unit.get()
        topic = self.changelog_topic
        if isinstance(unit, LogUnit):
            if unit.delivery.over or unit.state is State.DROPPED:
                raise PartitionTaken(f"table {self.name}: the partition of this event was taken away")
            if unit.state is State.FINISHED:
                raise TypeError(f"table {self.name} cannot be changed for an event that is done")
            encoded_key = topic.prepare_key(key, key_serializer or self.key_serializer)[0]
            deleted = value is None and value_serializer == "raw"
            encoded = None if deleted else topic.prepare_value(value, value_serializer or self.value_serializer)[0]
            target = unit.delivery.fetched.target
            self._note_partition(key, target.partition)
            state = self.state_for(target.topic)
            unit.write(_Write(state, unit.delivery, key, self._before(key), encoded_key, encoded))
        return FutureMessage(PendingMessage(topic, key, value, partition, None, None, "", "", None))

    async def _del_old_keys(self) -> None:
        # Faust drops keys of windows that are too old from memory only.
        windowed = [(place[0], key) for place, keys in self._partition_timestamp_keys.items() for key in keys]
        await super()._del_old_keys()
        for partition, key in windowed:
            if key not in self.data:
                self._forget_key(key)
                encoded = self.changelog_topic.prepare_key(key, self.key_serializer)[0]
                for state in self._states.values():
                    if state.written:
                        state.expire(partition, encoded)

    # -- keeping and restoring

    def put_back(self, key: Any, before: Any) -> None:
        """Give `key` the value that it had."""
        if before is _MISSING:
            self.data.pop(key, None)
            self._forget_key(key)
        else:
            self.data[key] = self._decode_value(before.value) if isinstance(before, _Encoded) else before

    def keep(self, key: Any, encoded: bytes | None) -> None:
        """`key` has its new value for good. One that can be changed in place is kept encoded too, to get back to."""
        if encoded is None:
            self._forget_key(key)
        elif isinstance(self.data.get(key), IMMUTABLE):
            self._encoded.pop(key, None)
        else:
            self._encoded[key] = encoded

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take entries of the changelog."""
        for encoded_key, encoded in entries:
            try:
                key, value = self._decode_key(encoded_key), self._decode_value(encoded)
            except DecodeError as error:
                raise ConfigError(
                    f"table {self.name}: an entry of {self.changelog_topic_name} is not what key_type and value_type "
                    f"say: {error}"
                ) from error
            self.data[key] = value
            self._partition_of[key] = partition
            self.keep(key, encoded)
            self._maybe_set_key_ttl(key, partition)

    def forget(self, partition: int) -> None:
        """Drop all keys of a partition."""
        for key in [key for key, owner in self._partition_of.items() if owner == partition]:
            self.data.pop(key, None)
            self._forget_key(key)
        self._partition_timestamps.pop(partition, None)
        for owner, end in [each for each in self._partition_timestamp_keys if each[0] == partition]:
            del self._partition_timestamp_keys[owner, end]

    def _before(self, key: Any) -> Any:
        value = self.data.get(key, _MISSING)
        if value is _MISSING or isinstance(value, IMMUTABLE):
            return value
        # Set by an event that is not done yet it has no encoded form; that event's own undo comes later and is right.
        encoded = self._encoded.get(key)
        return value if encoded is None else _Encoded(encoded)

    def _note_partition(self, key: Any, partition: int) -> None:
        known = self._partition_of.setdefault(key, partition)
        if known != partition and not self._warned:
            self._warned = True
            log_.warning(
                "table key written from two partitions; after a restart it has the value of one of them",
                table=self.name,
                partitions=sorted((known, partition)),
            )

    def _forget_key(self, key: Any) -> None:
        self._partition_of.pop(key, None)
        self._encoded.pop(key, None)

    def _decode_key(self, encoded: bytes) -> Any:
        message = Message(self.changelog_topic_name, 0, -1, 0.0, 0, {}, encoded, None, None)
        loaded = self.changelog_topic.schema.loads_key(self.app, message, serializer=self.key_serializer)
        return self._to_key(loaded)

    def _decode_value(self, encoded: bytes) -> Any:
        message = Message(self.changelog_topic_name, 0, -1, 0.0, 0, {}, None, encoded, None)
        loaded = self.changelog_topic.schema.loads_value(self.app, message, serializer=self.value_serializer)
        return self._to_value(loaded)


class TableState:
    """The changes that events of one topic make to a table; a `headrace.engine.operator.State`."""

    def __init__(self, table: EventTable, topic: str) -> None:
        self.name = table.name
        self.topic = topic
        self.table = table
        self.written = False
        self._staged: dict[int, tuple[Delivery, dict[bytes, bytes | None]]] = {}
        self._finished: dict[int, dict[bytes, bytes | None]] = {}

    def __eq__(self, other: object) -> bool:
        """Whether it is the same table: what restores or drops one does so for all topics."""
        return isinstance(other, TableState) and other.table is self.table

    def __hash__(self) -> int:
        return id(self.table)

    def stage(self, delivery: Delivery, key: bytes, value: bytes | None) -> None:
        """An event of `delivery` is done with this change; it counts when the whole delivery is."""
        self.written = True
        partition = delivery.fetched.target.partition
        known, changes = self._staged.get(partition, (None, {}))
        if known is not delivery:
            changes = {}
            self._staged[partition] = (delivery, changes)
            delivery.on_finished(lambda: self._finished.setdefault(partition, {}).update(changes))
        changes[key] = value

    def expire(self, partition: int, key: bytes) -> None:
        """A window is too old; its entry goes with the next commit of the partition."""
        self._finished.setdefault(partition, {})[key] = None

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """See `headrace.engine.operator.State`."""
        self.table.restore(partition, entries)

    def restored(self, partition: int) -> None:
        """Nothing to do."""

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        """See `headrace.engine.operator.State`."""
        return self._finished.pop(partition, {})

    def forget(self, partition: int) -> None:
        """See `headrace.engine.operator.State`."""
        self._staged.pop(partition, None)
        self._finished.pop(partition, None)
        self.table.forget(partition)


@dataclass(slots=True)
class _Encoded:
    """A value that the agent may have changed in place since."""

    value: bytes


@dataclass(slots=True)
class _Write:
    """One change of one key."""

    state: TableState
    delivery: Delivery
    key: Any
    before: Any
    encoded_key: bytes
    encoded: bytes | None

    def undo(self) -> None:
        self.state.table.put_back(self.key, self.before)

    def keep(self) -> None:
        self.state.table.keep(self.key, self.encoded)
        self.state.stage(self.delivery, self.encoded_key, self.encoded)
