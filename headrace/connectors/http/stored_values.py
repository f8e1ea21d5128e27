"""`GET /api/data`: the newest values that the database has of collector devices."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web

from headrace.connectors.http.access import Client
from headrace.connectors.http.judge import Newest, NewestValues
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.timescale.query_pool import QueryError, QueryTimeout
from headrace.connectors.timescale.store import Store
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, Disconnected, RetryLater
from headrace.schemas.device_type import DeviceType

#: Rows unless asked otherwise, and at the most.
LIMIT, MAX_LIMIT = 100, 1_000
#: How old a value may be, seconds: 30 days.
WITHIN = 30 * 86_400.0
#: Seconds that one look may take.
TIMEOUT = 5.0
_NO_DATABASE = (
    "there is no database to ask: run `headrace sink` on the same data folder, or name a server as [database] dsn for "
    "both; then ask again"
)


class StoredValues:
    """Asks the database, which is connected to when somebody asks for the first time.

    Args:
        database: opens it; arguments of `asyncpg.connect`, see `headrace.cli.opened_database`.
        device_type: whose values.
        clock: for the time.
    """

    def __init__(
        self,
        database: Callable[[], AbstractAsyncContextManager[Mapping[str, Any]]],
        device_type: DeviceType,
        clock: Clock,
    ) -> None:
        self._database = database
        self._type = device_type
        self._clock = clock
        self._stack = AsyncExitStack()
        self._store: Store | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the database."""
        self._store = None
        await self._stack.aclose()

    async def newest(self, device_id: str | None, limit: int) -> Sequence[Newest]:
        """See `headrace.connectors.http.judge.NewestValues`."""
        try:
            async with self._turn:
                store = self._store or await self._open()
            names = None if device_id is None else [device_id]
            found = await store.latest(names, device_type=self._type.name, within=WITHIN)
        except QueryError:
            return []  # nothing of it is stored yet
        except ConfigError:
            raise _unavailable(_NO_DATABASE) from None
        except (Disconnected, RetryLater, QueryTimeout) as error:
            raise _unavailable(f"the database does not answer: {error}") from None
        values = sorted(found.values, key=lambda each: (-each.time_ms, each.device_id, each.metric))[:limit]
        units = self._type.units
        return [
            Newest(each.device_id, each.metric, each.value, units.get(each.metric, ""), each.time_ms) for each in values
        ]

    async def _open(self) -> Store:
        async with AsyncExitStack() as stack:
            connect = await stack.enter_async_context(self._database())
            store = await stack.enter_async_context(Store(connect, self._clock, timeout=TIMEOUT, connections=2))
            self._stack = stack.pop_all()
        self._store = store
        return store


async def newest_rows(
    request: web.BaseRequest, client: Client, values: NewestValues | None
) -> list[dict[str, str | float]]:
    """Rows as the collector's table has them.

    Raises:
        HttpProblem: there is no database, or the question is wrong.
    """
    if values is None:
        raise _unavailable(_NO_DATABASE)
    device_id, asked = request.query.get("device_id"), request.query.get("limit", str(LIMIT))
    if not (asked.isascii() and asked.isdigit() and len(asked) < 9 and 1 <= int(asked) <= MAX_LIMIT):
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", f"limit must be a number from 1 to {MAX_LIMIT}")
    if device_id is None and not client.is_for_all:
        said = "this key is for some devices; name one as device_id"
        raise HttpProblem(HTTPStatus.FORBIDDEN, "forbidden", said)
    if device_id is not None and not client.may(device_id.encode(errors="replace")):
        raise HttpProblem(HTTPStatus.FORBIDDEN, "forbidden", "this key may not ask for that device")
    return [
        {
            "device_id": each.device_id,
            "sensor_type": each.metric,
            "value": each.value,
            "unit": each.unit,
            "timestamp": datetime.fromtimestamp(each.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        }
        for each in await values.newest(device_id, int(asked))
    ]


def _unavailable(said: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", said)
