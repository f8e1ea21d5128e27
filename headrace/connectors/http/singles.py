"""Requests that bring one message."""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Annotated, Any, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec
import orjson
from aiohttp import web

from headrace.connectors.http.access import Client
from headrace.connectors.http.appender import Parcel
from headrace.connectors.http.body import Room, read_body
from headrace.connectors.http.delivery import Delivery
from headrace.connectors.http.judge import Judge
from headrace.connectors.http.media import JSON, media_type
from headrace.connectors.http.prefer import wish
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.verdicts import Verdict
from headrace.connectors.payload_fields import PayloadFields
from headrace.connectors.topic_profile import DEVICE
from headrace.connectors.topic_routes import UNKNOWN, Route, TopicRoutes
from headrace.engine.metrics import Metrics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.topics import NO_DEVICE

#: Device types of the paths that say it, and the profile in the header of what comes there.
SENSOR_DATA, API_DATA = ("aggregator", "sensor-data"), ("collector", "api-data")
#: What a device id must not have in a path: there it becomes a level of a topic.
_SPECIAL = frozenset("/+#\0")


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _SensorData(msgspec.Struct):
    """What a message of an aggregator must have; ingest alone would take one without a value, for its texts."""

    sensor_id: _Text
    type: _Text
    value: float
    location: _Text


class _Row(msgspec.Struct):
    """Likewise of a collector."""

    device_id: _Text
    sensor_type: _Text
    value: float


class Singles:
    """Takes one message per request, and answers with what ingest says of it.

    Args:
        settings: limits.
        room: what requests may hold together.
        judge: refuses before the append what ingest would refuse.
        routes: what topics lead to.
        device_types: by name.
        delivery: into the log.
        metrics: told what is refused.
    """

    def __init__(
        self,
        settings: HttpSettings,
        room: Room,
        judge: Judge,
        routes: TopicRoutes,
        device_types: Mapping[str, DeviceType],
        delivery: Delivery,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._room = room
        self._judge = judge
        self._routes = routes
        self._delivery = delivery
        self._metrics = metrics
        shapes: dict[str, Any] = {SENSOR_DATA[1]: _SensorData, API_DATA[1]: _Row}
        self._shapes = {profile: msgspec.json.Decoder(shape).decode for profile, shape in shapes.items()}
        aggregator = device_types.get(SENSOR_DATA[0])
        self._sensor_types = () if aggregator is None else aggregator.measures
        self._fixed = {
            profile: Route(b"", name, profile, PayloadFields(device_types[name].identity, None))
            for name, profile in (SENSOR_DATA, API_DATA)
            if name in device_types
        }

    @property
    def known(self) -> Collection[str]:
        """Profiles whose device types there are: `SENSOR_DATA[1]`, `API_DATA[1]`."""
        return self._fixed.keys()

    async def sensor_data(self, request: web.BaseRequest, client: Client) -> web.Response:
        """`POST /sensor/data`."""
        return await self._take(request, client, self._fixed[SENSOR_DATA[1]])

    async def api_data(self, request: web.BaseRequest, client: Client) -> web.Response:
        """`POST /api/data`."""
        return await self._take(request, client, self._fixed[API_DATA[1]])

    async def telemetry(self, request: web.BaseRequest, client: Client, name: str) -> web.Response:
        """`POST /devices/{device_id}/telemetry`.

        Args:
            name: the device id as it stands in the path.
        """
        try:
            device_id = unquote_to_bytes(name).decode()
        except UnicodeDecodeError:
            raise _invalid("the device id in the path is not UTF-8") from None
        if not device_id or not _SPECIAL.isdisjoint(device_id):
            raise _invalid("a device id in a path is not empty and has no / + # and U+0000")
        topic = self._settings.topic.replace(DEVICE, device_id)
        route = self._routes.find([topic.encode()])[0]
        if route is UNKNOWN:
            raise HttpProblem(HTTPStatus.NOT_FOUND, "not-found", f"no topic profile takes the topic {topic!r}")
        return await self._take(request, client, route)

    async def _take(self, request: web.BaseRequest, client: Client, route: Route) -> web.Response:
        media_type(request, JSON)
        settings = self._settings
        with self._room.enter() as share:
            payload = await read_body(request, settings, share)
            if len(payload) > settings.max_message_bytes:
                said = f"the message has {len(payload)} bytes; {settings.max_message_bytes} are allowed"
                raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", said)
            said_id, alarm = route.fields.read(payload) if route.fields else (b"", False)
            device_id = route.device_id or said_id or NO_DEVICE.encode()
            self._check(payload, device_id, route, client)
            self._check_shape(payload, route)
            (message_id,) = self._delivery.message_ids(1)
            parcel = Parcel(
                [device_id],
                [payload],
                [message_id],
                route.device_type,
                route.profile,
                request.rel_url.raw_path.encode(),
                [0] if alarm else [],
            )
            wanted = wish(request, settings.verdict_timeout, settings.max_wait)
            (verdict,) = await self._delivery.deliver(parcel, wanted.seconds)
        return _answer(verdict, message_id.decode(), wanted.headers)

    def _check(self, payload: bytes, device_id: bytes, route: Route, client: Client) -> None:
        refused = self._judge.refusals(route.device_type, [device_id], [payload])
        if refused:
            self._refuse(_refusal(payload, refused[0]))
        if not client.may(device_id):
            said = f"this key may not send for {device_id.decode()!r}"
            self._refuse(HttpProblem(HTTPStatus.FORBIDDEN, "forbidden", said))

    def _check_shape(self, payload: bytes, route: Route) -> None:
        if self._fixed.get(route.profile) is not route:
            return
        try:
            message = self._shapes[route.profile](payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(_invalid(str(error)))
        if isinstance(message, _SensorData) and message.type not in self._sensor_types:
            known = ", ".join(self._sensor_types)
            self._refuse(_invalid(f"type is {message.type[:100]!r}; it must be one of {known}"))

    def _refuse(self, problem: HttpProblem) -> NoReturn:
        self._metrics.count("headrace_http_refused_total", http_reason=problem.kind)
        raise problem


def _refusal(payload: bytes, reason: str) -> HttpProblem:
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return HttpProblem(HTTPStatus.BAD_REQUEST, "not-json", reason)
    return _invalid(reason)


def _invalid(reason: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.BAD_REQUEST, "invalid-message", reason)


def _answer(verdict: Verdict | None, message_id: str, headers: Mapping[str, str]) -> web.Response:
    if verdict is None:
        said = "it is in the log for good, and not judged yet; a conflict would be kept aside"
        return _json(HTTPStatus.ACCEPTED, {"status": "accepted", "message_id": message_id, "detail": said}, headers)
    if verdict.kind == "stored":
        return _json(HTTPStatus.CREATED, {"status": "stored", "message_id": message_id}, headers)
    if verdict.kind == "refused":
        raise HttpProblem(HTTPStatus.BAD_REQUEST, "refused", verdict.reason, headers=headers, message_id=message_id)
    conflict = verdict.conflict
    sides = {} if conflict is None else {"time": conflict.time, "sent": conflict.measures, "stored": conflict.accepted}
    raise HttpProblem(HTTPStatus.CONFLICT, "conflict", verdict.reason, headers=headers, message_id=message_id, **sides)


def _json(status: HTTPStatus, document: Mapping[str, str], headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), headers=headers, content_type="application/json")
