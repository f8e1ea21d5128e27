"""Which request goes where."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus

import orjson
import structlog
from aiohttp import web

from headrace.connectors.http.access import Access, Client
from headrace.connectors.http.batches import Batches
from headrace.connectors.http.judge import NewestValues
from headrace.connectors.http.openapi import document
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.singles import API_DATA, SENSOR_DATA, Singles
from headrace.connectors.http.stored_values import newest_rows
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics
from headrace.schemas.text import near

log = structlog.get_logger(__name__)

Endpoint = Callable[[web.BaseRequest, Client], Awaitable[web.Response]]
Methods = Mapping[str, Endpoint]
#: `/devices/{device_id}/telemetry`, cut at its slashes.
_DEVICES, _TELEMETRY = "devices", "telemetry"


#: Query parameters that there are.
_PARAMETERS: Mapping[tuple[str, str], Sequence[str]] = {
    ("POST", "/batch"): ("device_type",),
    ("GET", "/api/data"): ("device_id", "limit"),
    ("HEAD", "/api/data"): ("device_id", "limit"),
}


class Routing:
    """Answers requests.

    Args:
        settings: what is described.
        access: who may do anything; health and the description are for everybody.
        singles, batches: take messages.
        values: the newest, where a database has them.
        health: of the process.
        metrics: told of answers.
    """

    def __init__(
        self,
        settings: HttpSettings,
        access: Access,
        singles: Singles,
        batches: Batches,
        values: NewestValues | None,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._access = access
        self._singles = singles
        self._values = values
        self._health = health
        self._metrics = metrics
        self._description = orjson.dumps(document(settings, singles.known))
        self._open: dict[str, Endpoint] = {"/health": self._tell_health, "/openapi.json": self._describe}
        self._paths: dict[str, dict[str, Endpoint]] = {path: {"GET": each} for path, each in self._open.items()}
        self._paths["/batch"] = {"POST": batches.post}
        if SENSOR_DATA[1] in singles.known:
            self._paths["/sensor/data"] = {"POST": singles.sensor_data}
        if API_DATA[1] in singles.known:
            self._paths["/api/data"] = {"POST": singles.api_data, "GET": self._newest}
        #: Set when no more is taken.
        self.stopping = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request.

        Raises:
            ConnectionError: the client is gone.
        """
        try:
            if self.stopping:
                raise HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "this server is being stopped")
            response = await self._answer(request)
        except HttpProblem as problem:
            response = problem.response()
        except ConnectionError:
            raise
        except Exception:
            log.exception("http_failed", path=request.rel_url.raw_path)
            said = "this is a fault of the server; whether the message is in the log is not known"
            response = HttpProblem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", said).response()
        if self.stopping or not request.content.is_eof():
            response.force_close()  # what is left of a body is no request
        self._metrics.count("headrace_http_answers_total", http_status=response.status)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        methods = self._paths.get(path) or self._of_device(path)
        if methods is None:
            raise HttpProblem(
                HTTPStatus.NOT_FOUND, "not-found", "there is nothing here; /openapi.json says what there is"
            )
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise HttpProblem(
                HTTPStatus.METHOD_NOT_ALLOWED, "not-allowed", f"only {allowed} here", headers={"Allow": allowed}
            )
        _check_query(request, _PARAMETERS.get((request.method, path), ()))
        client = Client("", ()) if path in self._open else self._access.client(request)
        return await endpoint(request, client)

    def _of_device(self, path: str) -> Methods | None:
        parts = path.split("/")
        if len(parts) != 4 or (parts[1], parts[3]) != (_DEVICES, _TELEMETRY):
            return None
        return {"POST": partial(self._singles.telemetry, name=parts[2])}

    async def _tell_health(self, request: web.BaseRequest, client: Client) -> web.Response:
        problems = [problem.what for problem in self._health.problems()]
        if problems:
            raise HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "; ".join(problems))
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def _describe(self, request: web.BaseRequest, client: Client) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")

    async def _newest(self, request: web.BaseRequest, client: Client) -> web.Response:
        rows = await newest_rows(request, client, self._values)
        return web.Response(body=orjson.dumps({"data": rows}), content_type="application/json")


def _check_query(request: web.BaseRequest, known: Sequence[str]) -> None:
    """Refuse what is not asked for here: a parameter that is misspelt would be one that was not sent."""
    for name in request.query:
        if name not in known:
            said = f"there is no query parameter {name[:100]!r} here{near(name[:100], known)}"
            raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", said)
