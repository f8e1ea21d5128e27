"""What there is to ask for: device types, their metrics, and which type a device is of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.connectors.timescale.query_pool import QueryError, QueryPool
from headrace.connectors.timescale.readings_table import ReadingsTable, TableSpec, quoted
from headrace.engine.clock import Clock
from headrace.schemas.text import near

#: Seconds that a device's type is believed without asking.
TRUSTED_FOR = 30.0
MOST_TRUSTED = 100_000
#: Devices among which a misspelt one is looked for.
MOST_GUESSED = 10_000

_METRICS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND atttypid = 'double precision'::regtype
    ORDER BY attnum
"""
_TYPES = "SELECT device_type FROM device_state UNION SELECT device_type FROM ledger ORDER BY 1"


@dataclass(frozen=True, slots=True)
class TypeTable:
    """The readings table of a device type.

    Args:
        name: of the table, as an SQL identifier.
        metrics: those that have a column.
    """

    device_type: str
    name: str
    metrics: tuple[str, ...]

    def chosen(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """`metrics`, or all if none are named.

        Raises:
            QueryError: one is not known, or is named twice.
        """
        unknown = [name for name in metrics if name not in self.metrics]
        if unknown:
            known = ", ".join(self.metrics) or "none"
            raise QueryError(
                *(
                    f"{self.device_type} has no metric {name!r}{near(name, self.metrics)}; it has {known}"
                    for name in unknown
                )
            )
        if len(set(metrics)) < len(metrics):
            raise QueryError("a metric is named twice")
        return tuple(metrics) or self.metrics


class Catalog:
    """Looks names up, and remembers them: the only source of identifiers in SQL."""

    def __init__(self, pool: QueryPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._tables: dict[str, TypeTable] = {}
        self._types: dict[str, tuple[float, str]] = {}
        #: Device types and bins for which there were windows when somebody last asked.
        self.windowed: set[tuple[str, str]] = set()

    async def device_types(self) -> list[str]:
        """All of which something is stored."""
        return [row[0] for row in await self._pool.fetch(_TYPES)]

    async def table(self, device_type: str, metrics: Sequence[str] = ()) -> TypeTable:
        """The table of a device type.

        Raises:
            QueryError: there is no such type, or it lacks one of `metrics`.
        """
        found = self._tables.get(device_type)
        if found is None or not set(metrics) <= set(found.metrics):
            self._tables[device_type] = found = await self._look_up(device_type)
        found.chosen(metrics)
        return found

    async def of_device(self, device_id: str, device_type: str | None, metrics: Sequence[str] = ()) -> TypeTable:
        """The table of a device; its type is looked up unless named.

        Raises:
            QueryError: there is no such device, type or metric.
        """
        check_texts([device_id, *metrics])
        if device_type is None:
            believed = self._types.get(device_id)
            if believed is None or believed[0] < self._clock.monotonic():
                if len(self._types) >= MOST_TRUSTED:
                    self._types.clear()
                found = await self._type_of(device_id)
                self._types[device_id] = believed = (self._clock.monotonic() + TRUSTED_FOR, found)
            device_type = believed[1]
        return await self.table(device_type, metrics)

    async def _look_up(self, device_type: str) -> TypeTable:
        check_texts([device_type])
        name = quoted(ReadingsTable(TableSpec(device_type)).name)
        metrics = tuple(row[0] for row in await self._pool.fetch(_METRICS, name))
        if not metrics and await self._pool.fetch("SELECT WHERE to_regclass($1) IS NULL", name):
            known = await self.device_types()
            raise QueryError(
                f"nothing is stored of a device type {device_type!r}{near(device_type, known)}; "
                f"there are {', '.join(known) or 'none'}"
            )
        return TypeTable(device_type, name, metrics)

    async def _type_of(self, device_id: str) -> str:
        rows = await self._pool.fetch("SELECT device_type FROM device_state WHERE device_id = $1", device_id)
        if rows:
            return str(rows[0][0])
        for device_type in await self.device_types():
            # Stored before the database kept states.
            table = await self.table(device_type)
            if await self._pool.fetch(f"SELECT FROM {table.name} WHERE device_id = $1 LIMIT 1", device_id):
                return device_type
        known = await self._pool.fetch("SELECT device_id FROM device_state LIMIT $1", MOST_GUESSED)
        raise QueryError(
            f"nothing is stored of a device {device_id!r}{near(device_id, [row[0] for row in known])}; "
            "`headrace query state` lists devices"
        )


def check_texts(texts: Iterable[str]) -> None:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        QueryError: one has a NUL character, or is not Unicode.
    """
    for text in texts:
        if "\0" in text or (not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text)):
            raise QueryError(f"{text!r} is no name: it has a character that PostgreSQL cannot store")
