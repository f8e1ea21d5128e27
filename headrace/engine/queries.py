"""Interactive queries: what the tables of a running app hold about a device, or which worker knows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.engine.operator import Operator, Readable
from headrace.engine.table_reader import between, partition_of

if TYPE_CHECKING:  # Faust takes a second to import, and most commands run no agent
    from headrace.engine.app import App
    from headrace.engine.runtime.tables import BatchTableManager


@runtime_checkable
class Queryable(Readable, Protocol):
    """State that can say what it holds of one device right now."""

    def entries_of(self, partition: int, device: str) -> dict[bytes, bytes]:
        """The entries of a device as the changelog would get them now, and those that `rows` needs besides."""
        ...


class Answer(NamedTuple):
    """What a worker knows.

    Args:
        partition: that the device's rows are in.
        is_here: whether this worker has the partition; `rows` are what it holds, up to the last finished batch, and may
            be ahead of the changelog by a commit.
        owner: who has it elsewhere, as text for people; None if nobody has, or if it is here.
        rows: as of `headrace.engine.operator.Readable.rows`, in the order of their keys.
    """

    partition: int
    is_here: bool
    owner: str | None
    rows: list[dict[str, Any]]


class Queries:
    """Answers about the tables of an app's operators. To be used on the app's event loop.

    Args:
        app: the running app.
        operators: those it was given by `App.add`.
    """

    def __init__(self, app: "App", operators: Iterable[Operator]) -> None:
        self._app = app
        self._tables = {
            table.name: (operator.topic, table)
            for operator in operators
            for table in operator.tables
            if isinstance(table, Queryable)
        }

    @property
    def tables(self) -> list[str]:
        """Names of the tables that can be asked."""
        return list(self._tables)

    async def about(self, table: str, device: str, first_ms: int | None = None, last_ms: int | None = None) -> Answer:
        """What `table` holds about a device.

        Args:
            first_ms, last_ms: only rows whose `start` (or `time`) is in between, both included; ms since 1970 UTC.
        Raises:
            ConfigError: there is no such table, or it cannot be asked.
            LogError: the log cannot tell who has the partition.
        """
        if table not in self._tables:
            raise ConfigError(f"there is no table {table} to be asked; there are {', '.join(self._tables)}")
        topic, state = self._tables[table]
        log, group = self._app.record_log, self._app.conf.id
        target = TopicPartition(topic, partition_of(log, group, table, device))
        if target in self._app.assigned and cast("BatchTableManager", self._app.tables).is_restored(target):
            rows = state.rows(state.entries_of(target.partition, device))
            return Answer(target.partition, True, None, list(between(rows, device, first_ms, last_ms)))
        return Answer(target.partition, False, (await log.owners(group)).get(target), [])
