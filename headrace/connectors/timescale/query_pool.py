"""Connections for queries: they can only read, in consistent snapshots, and for a limited time."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from headrace.connectors.timescale.copy_rows import POSTGRES_EPOCH_MS
from headrace.engine.errors import ConfigError, Disconnected, HeadraceError, RetryLater

#: Seconds that connecting may take.
CONNECT_TIMEOUT = 10.0
#: For the groups of one query; with the usual 4 MB those of a fleet are sorted on disk.
WORK_MEM = "32MB"
#: Error classes that say the server is going, or coming, or has no room (PostgreSQL manual, appendix A).
GONE = ("08", "57P")
BUSY = ("40", "53")


#: A connection whose statements all see the same moment.
Snapshot = PoolConnectionProxy


class Reads(Protocol):
    """A snapshot; or the pool, on which every statement sees a moment of its own."""

    async def fetch(self, sql: str, /, *args: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        ...


class QueryError(ConfigError):
    """What was asked for cannot be answered; says why, and what can. Holds every mistake found."""


class QueryTimeout(HeadraceError):
    """The database took longer than allowed; ask for less, or allow more."""


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        # Nothing here changes a session; the usual reset is a round trip per query.
        return ""


class QueryPool:
    """A pool of connections on which every transaction is REPEATABLE READ READ ONLY and limited in time.

    Times go in and out as ms since 1970 UTC.

    Args:
        connect: keyword arguments for `asyncpg.connect`.
        timeout: seconds that one statement may take.
        size: most connections.
    """

    def __init__(self, connect: Mapping[str, Any], *, timeout: float, size: int) -> None:
        if not timeout > 0:
            raise QueryError(f"timeout must be more than 0 s, not {timeout}")
        settings = {
            "application_name": "headrace query",
            "default_transaction_isolation": "repeatable read",
            "default_transaction_read_only": "on",
            "statement_timeout": str(max(1, round(timeout * 1000))),
            "jit": "off",
            "work_mem": WORK_MEM,
            **connect.get("server_settings", {}),
        }
        self._connect = {"timeout": CONNECT_TIMEOUT, **connect, "server_settings": settings}
        self._timeout = timeout
        self._size = size
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            Disconnected: the database does not answer.
        """
        with self._translated():
            self._pool = await asyncpg.create_pool(
                **self._connect, min_size=1, max_size=self._size, init=_times_as_ms, connection_class=_Connection
            )

    async def close(self) -> None:
        """Let go of all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def fetch(self, sql: str, /, *args: Any) -> list[asyncpg.Record]:
        """The rows of one statement, which is a snapshot by itself."""
        with self._translated():
            rows: list[asyncpg.Record] = await self._opened().fetch(sql, *args)
        return rows

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """A connection whose statements all see the same moment."""
        with self._translated():
            async with self._opened().acquire() as connection, connection.transaction():
                yield connection

    def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            raise Disconnected("the store is not open: use it as `async with Store(…) as store`")
        return self._pool

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise errors of asyncpg and PostgreSQL as ours."""
        try:
            yield
        except asyncpg.QueryCanceledError as error:
            raise QueryTimeout(
                f"the query took longer than {self._timeout:g} s: ask for less time, fewer devices or wider bins, "
                "or allow it longer"
            ) from error
        except asyncpg.UndefinedTableError as error:
            raise QueryError(
                f"this database is not headrace's, or of an older version: {error}; start a worker or sink on it once"
            ) from error
        except asyncpg.PostgresError as error:
            code = error.sqlstate or ""
            message = f"{type(error).__name__} {code}: {error}"
            if code.startswith(GONE):
                raise Disconnected(message) from error
            if code.startswith(BUSY):
                raise RetryLater(message) from error
            raise QueryError(f"PostgreSQL refuses: {message}") from error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
            raise Disconnected(f"{type(error).__name__}: {error}") from error


async def _times_as_ms(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple", encoder=_to_postgres, decoder=_from_postgres
    )


def _to_postgres(time_ms: int) -> tuple[int]:
    return ((time_ms - POSTGRES_EPOCH_MS) * 1000,)


def _from_postgres(value: tuple[int]) -> int:
    return value[0] // 1000 + POSTGRES_EPOCH_MS
