"""Keeping the database as the program needs it: who makes the tables, and what is said where nobody may."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from headrace.connectors.timescale.migrations import Migration, migrate, missing
from headrace.connectors.timescale.policies import apply_policies
from headrace.connectors.timescale.readings_table import ReadingsTable
from headrace.connectors.timescale.roles import grant, lacking, tables_of, wanted
from headrace.connectors.timescale.settings import TimescaleSettings
from headrace.engine.errors import ConfigError, RetryLater

#: What to do about a database that is not as it must be.
ADVICE = (
    "run `headrace database up` as a role that may: [database] migration_dsn names one, and with it in the settings "
    "of the sink it makes tables by itself"
)
#: Seconds until a sink looks again whether somebody has made the table that it needs.
LOOK_AGAIN = 10.0
#: Longest time that connecting may take, seconds.
CONNECT_TIMEOUT = 10.0

logger = structlog.get_logger(__name__)


class SchemaKeeper:
    """Brings a database up to date.

    With an owner all of it is done on a short connection of the owner's, and the other role gets what it needs and no
    more. Without one it is done by the role that is connected, if it may.

    Args:
        owner: keyword arguments for `asyncpg.connect` of the role that makes tables; None for the connected one.
        timescale: what TimescaleDB is told, once per process and for every new table; None leaves it alone.
    """

    def __init__(self, owner: Mapping[str, Any] | None = None, timescale: TimescaleSettings | None = None) -> None:
        self._owner = owner
        self._timescale = timescale
        self._settled = False

    async def bring_up(
        self, connection: asyncpg.Connection, steps: Sequence[Migration], tables: Sequence[ReadingsTable]
    ) -> list[str]:
        """Apply the steps that are missing, grant, and set policies; the versions applied.

        Args:
            tables: all readings tables that the steps make.
        Raises:
            ConfigError: the database lacks something and no role at hand may change it, or it is of a newer headrace.
        """
        if self._owner is None:
            return await self._by_itself(connection, steps, tables)
        if self._settled and not await missing(connection, steps):
            return []
        role = await connection.fetchval("SELECT current_user")
        async with _connected(self._owner) as owner:
            done = await migrate(owner, steps)
            views = await self._policies(owner, tables)
            if await owner.fetchval("SELECT current_user") != role:
                await grant(owner, role, steps, write=True, views=views)
        self._settled = True
        return done

    async def add(self, connection: asyncpg.Connection, table: ReadingsTable) -> None:
        """Make the table of a device type that nobody announced.

        Raises:
            RetryLater: no role at hand may; says what to do, and nothing is lost meanwhile.
        """
        self._settled = False
        try:
            await self.bring_up(connection, table.migrations(), [table])
        except (ConfigError, asyncpg.InsufficientPrivilegeError) as error:
            raise RetryLater(
                f"readings of device type {table.spec.device_type} wait for their table {table.name}: {error}. For a "
                f"type that no file describes: headrace database up --device-type {table.spec.device_type}",
                after=LOOK_AGAIN,
            ) from error

    async def _by_itself(
        self, connection: asyncpg.Connection, steps: Sequence[Migration], tables: Sequence[ReadingsTable]
    ) -> list[str]:
        role = await connection.fetchval("SELECT current_user")
        try:
            lacks = await missing(connection, steps)
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigError(f"role {role} may not look at headrace_migrations; {ADVICE}") from error
        try:
            done = await migrate(connection, lacks) if lacks else []
        except asyncpg.InsufficientPrivilegeError as error:
            names = ", ".join(step.version for step in lacks)
            raise ConfigError(f"the database lacks {names}, and role {role} may not make tables; {ADVICE}") from error
        if not self._settled:
            needs = await lacking(connection, role, wanted(tables_of(steps), write=True))
            if needs:
                raise ConfigError(f"role {role} lacks {needs}; {ADVICE}")
        if not self._settled or done:
            try:
                await self._policies(connection, tables)
            except asyncpg.InsufficientPrivilegeError as error:
                logger.warning("timescaledb_policies_left_alone", role=role, reason=str(error))
        self._settled = True
        return done

    async def _policies(self, connection: asyncpg.Connection, tables: Sequence[ReadingsTable]) -> list[str]:
        """The views of continuous aggregates that there are."""
        if self._timescale is None:
            return []
        return await apply_policies(connection, self._timescale, tables)


@asynccontextmanager
async def _connected(connect: Mapping[str, Any]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(**{"timeout": CONNECT_TIMEOUT, **connect})
    try:
        yield connection
        await connection.close()
    finally:
        connection.terminate()
