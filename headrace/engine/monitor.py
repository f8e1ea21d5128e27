"""`/metrics`, `/health`, `/ready` and `/tables` of a worker, over HTTP."""

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

import structlog
from pydantic import BaseModel, ConfigDict, Field

from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError
from headrace.engine.health import Health
from headrace.engine.http_thread import Answer, HttpThread
from headrace.engine.metrics import Metrics
from headrace.engine.table_server import TableServer

MAX_PORT = 65_535
#: Problems shown; the rest is a number.
MAX_SHOWN = 20

PATHS = ("/metrics", "/health", "/ready")
#: Below this path tables are asked, where there are any.
TABLES = "/tables"

logger = structlog.get_logger(__name__)


class MonitorSettings(BaseModel):
    """Metrics and health of one worker over HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    port: int | None = Field(
        None,
        ge=0,
        le=MAX_PORT,
        description="of the first worker, the next ones count up; 0 for any free one; off if left out",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; anyone who reaches it may read")
    interval: float = Field(5.0, ge=0.1, le=3600, description="seconds between two looks at lag and positions")
    stuck_after: float = Field(
        60.0, ge=1, le=86_400, description="seconds without progress, with something to do, that are not healthy"
    )
    blocked_after: float = Field(
        10.0, ge=1, le=3600, description="seconds that an event loop does nothing else that are not healthy"
    )


class Monitor:
    """Answers from `start` to `stop`, if a port is configured; a blocked event loop does not keep it from answering.

    It shows `metrics` and `health`, which are safe for threads, and what `tables` answers.

    Args:
        settings: where to listen.
        metrics, health: what is shown.
        clock: tells since when something stands still.
        index: of the worker, from 0; added to the port.
    """

    def __init__(
        self, settings: MonitorSettings, metrics: Metrics, health: Health, clock: Clock, *, index: int = 0
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._index = index
        self._server: HttpThread | None = None
        #: Answers about tables; None while there are none to be asked.
        self.tables: TableServer | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return self._server.port if self._server else 0

    def start(self) -> None:
        """Listen, if a port is configured.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        host, first = self._settings.host, self._settings.port
        if first is None or self._server is not None:
            return
        port = first + self._index if first else 0
        try:
            if port > MAX_PORT:
                raise OSError("there is no such port")
            self._server = HttpThread(host, port, self.answer)
        except OSError as error:
            raise ConfigError(
                f"monitor.port: cannot listen on {host} port {port}: {error}; choose another, or 0 for any free one"
            ) from error
        logger.info("monitor_listening", host=host, port=self.port)

    def stop(self) -> None:
        """Stop listening, and close what is open."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def answer(self, method: str, target: str) -> Answer:
        """The response to a request, whoever carries it."""
        path, _, query = target.partition("?")
        about, _, name = path.lstrip("/").partition("/")
        tables = self.tables if f"/{about}" == TABLES else None
        if path not in PATHS and tables is None:
            known = [*PATHS, TABLES] if self.tables else PATHS
            return Answer(HTTPStatus.NOT_FOUND, f"there is {', '.join(known)}\n".encode())
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET or HEAD\n")
        if tables is not None:
            return tables.answer(unquote(name), dict(parse_qsl(query)))
        if path == "/metrics":
            return self._export()
        return self._judge(self._problems() if path == "/health" else self._reasons())

    def _export(self) -> Answer:
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415 - see Metrics.collect
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest  # noqa: PLC0415

        self._metrics.set("headrace_healthy", float(not self._health.problems()))
        self._metrics.set("headrace_ready", float(not self._health.unready()))
        registry = CollectorRegistry()
        registry.register(self._metrics)
        ProcessCollector(registry=registry)
        return Answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)

    def _problems(self) -> list[dict[str, Any]]:
        return [
            {"component": component, "problem": what, "since": self._ago(seconds), "remedy": remedy}
            for component, what, remedy, seconds in self._health.problems()
        ]

    def _reasons(self) -> list[dict[str, Any]]:
        return [
            {"component": component, "problem": why, "since": self._ago(seconds)}
            for component, why, seconds in self._health.unready()
        ]

    def _ago(self, seconds: float) -> str:
        return datetime.fromtimestamp(self._clock.now_ms() // 1000 - round(seconds), UTC).isoformat()

    @staticmethod
    def _judge(problems: list[dict[str, Any]]) -> Answer:
        document: dict[str, Any] = {"status": "failing" if problems else "ok", "problems": problems[:MAX_SHOWN]}
        if len(problems) > MAX_SHOWN:
            document["more"] = len(problems) - MAX_SHOWN
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return Answer(status, json.dumps(document).encode() + b"\n", "application/json")
