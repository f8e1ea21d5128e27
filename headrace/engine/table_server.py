"""`/tables` of a worker: interactive queries over HTTP."""

import asyncio
import concurrent.futures
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from headrace.engine.errors import ConfigError, LogError
from headrace.engine.http_thread import Answer
from headrace.engine.queries import Queries

#: Seconds that the worker's event loop gets to answer.
PATIENCE = 3.0
_PARAMETERS = ("device", "from", "to")


class TableServer:
    """Answers requests on any thread; the tables are looked at on the event loop that made this object.

    `/tables` lists what can be asked; `/tables/NAME?device=ID` gives the rows about a device, with `from` and `to`
    (ms since 1970 UTC) those that start in between. Where another worker has the device the status is 421, and `owner`
    says who.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._loop = asyncio.get_running_loop()

    def answer(self, name: str, parameters: Mapping[str, str]) -> Answer:
        """The response to `/tables/NAME`, or to `/tables` if the name is empty."""
        if not name:
            return _json(HTTPStatus.OK, {"tables": self._queries.tables})
        try:
            if unknown := parameters.keys() - set(_PARAMETERS):
                raise ConfigError(f"there is no parameter {', '.join(sorted(unknown))}; there are device, from and to")
            if not parameters.get("device"):
                raise ConfigError("name a device: /tables/NAME?device=ID")
            range_ms = [_milliseconds(parameters, side) for side in ("from", "to")]
            asked = asyncio.run_coroutine_threadsafe(
                self._queries.about(name, parameters["device"], *range_ms), self._loop
            )
            found = asked.result(PATIENCE)
        except ConfigError as error:
            known = name in self._queries.tables
            return _json(HTTPStatus.BAD_REQUEST if known else HTTPStatus.NOT_FOUND, {"error": str(error)})
        except (concurrent.futures.TimeoutError, LogError) as error:
            what = str(error) or "the worker is busy; ask again"
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": what})
        document = {"partition": found.partition, "here": found.is_here, "owner": found.owner, "rows": found.rows}
        return _json(HTTPStatus.OK if found.is_here else HTTPStatus.MISDIRECTED_REQUEST, document)


def _milliseconds(parameters: Mapping[str, str], side: str) -> int | None:
    text = parameters.get(side)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{side}: {text!r} is no time; write ms since 1970 UTC") from None


def _json(status: HTTPStatus, document: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(document).encode() + b"\n", "application/json")
