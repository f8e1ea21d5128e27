"""Requests that bring one message."""

from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec
import orjson
from aiohttp import web

from headrace.connectors.http.access import Client
from headrace.connectors.http.appender import Parcel
from headrace.connectors.http.body import read_body
from headrace.connectors.http.delivery import Delivery
from headrace.connectors.http.idempotency import IdempotencyKeys, digest_of, key_of
from headrace.connectors.http.judge import Judge
from headrace.connectors.http.media import JSON, TELEMETRY, media_type
from headrace.connectors.http.prefer import Wish, wish
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.room import Room, Share
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.verdicts import Verdict
from headrace.connectors.payload_fields import PayloadFields
from headrace.connectors.topic_profile import DEVICE
from headrace.connectors.topic_routes import UNKNOWN, Route, TopicRoutes
from headrace.connectors.unpacking import Unpacked, unpack
from headrace.engine.clock import Clock
from headrace.engine.metrics import Metrics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near

#: Device types of the paths that say it, and the profile in the header of what comes there.
SENSOR_DATA, API_DATA = ("aggregator", "sensor-data"), ("collector", "api-data")
#: What a device id must not have in a path: there it becomes a level of a topic.
_SPECIAL = frozenset("/+#\0")

_NOT_JUDGED = "it is in the log for good, and no worker has judged it yet; a conflict would be kept aside"

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
        keys: answers that were given.
        clock: says when a message came, for formats with relative times.
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
        keys: IdempotencyKeys,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._room = room
        self._judge = judge
        self._routes = routes
        self._delivery = delivery
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        shapes: dict[str, Any] = {SENSOR_DATA[1]: _SensorData, API_DATA[1]: _Row}
        self._shapes = {profile: msgspec.json.Decoder(shape).decode for profile, shape in shapes.items()}
        aggregator = device_types.get(SENSOR_DATA[0])
        self._sensor_types = () if aggregator is None else aggregator.measures
        collector = device_types.get(API_DATA[0])
        self._row_types = () if collector is None else tuple(collector.numeric_sources)
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
        return await self._take(request, client, route, topic.encode())

    async def _take(self, request: web.BaseRequest, client: Client, route: Route, topic: bytes = b"") -> web.Response:
        kind, key = media_type(request, TELEMETRY if topic else JSON), key_of(request, client.name)
        settings = self._settings
        with self._room.enter() as share:
            payload = await read_body(request, settings, share, most=settings.max_message_bytes)
            if key is not None:
                return await self._take_once(request, client, share, route, topic, payload, key, kind)
            parcel, note = self._parcel(request, client, route, topic, payload)
            del payload
            wanted = wish(request, settings.verdict_timeout, settings.max_wait)
            verdicts = await self._deliver(parcel, share, wanted)
            return _answer(verdicts, parcel.message_ids, note, wanted.headers)

    async def _take_once(
        self,
        request: web.BaseRequest,
        client: Client,
        share: Share,
        route: Route,
        topic: bytes,
        payload: bytes,
        key: bytes,
        kind: str,
    ) -> web.Response:
        """Likewise, unless it was taken under this key before. What is refused leaves the key free."""
        source = request.rel_url.raw_path.encode()
        async with self._keys.turn(key):
            digest = digest_of(b"single", source, kind.encode(), payload)
            kept = self._keys.find(key, digest)
            if kept is not None:
                return kept.response()
            parcel, note = self._parcel(request, client, route, topic, payload)
            # The answer is kept before ingest can say anything, so it does not wait for that.
            answer = _answer([None] * len(parcel.message_ids), parcel.message_ids, note, {})
            assert isinstance(answer.body, bytes)
            kept = self._keys.answer(digest, answer.status, answer.body)
            parcel.changes = [self._keys.changes(key, kept)]
            await self._deliver(parcel, share, Wish(0.0, ""), patient=True)
            self._keys.put(key, kept)
            return answer

    async def _deliver(
        self, parcel: Parcel, share: Share, wanted: Wish, *, patient: bool = False
    ) -> Sequence[Verdict | None]:
        profiles = [event.profile for event in parcel.events]
        verdicts = await self._delivery.deliver(parcel, share, wanted, patient=patient)
        for profile in profiles:
            self._metrics.count("headrace_device_events_total", profile=profile)
        return verdicts

    def _parcel(
        self, request: web.BaseRequest, client: Client, route: Route, topic: bytes, payload: bytes
    ) -> tuple[Parcel, str]:
        """What it brings, and what the client should know of it.

        Raises:
            HttpProblem: it is refused.
        """
        made = unpack([route], [topic], [payload], self._clock.now_ms())
        note = self._check(payload, made, route, client)
        parcel = Parcel(
            made.device_ids,
            made.payloads,
            self._delivery.message_ids(len(made.payloads)),
            route.device_type,
            route.profile,
            request.rel_url.raw_path.encode(),
            made.alarms,
            made.sequences if any(made.sequences) else (),
            made.events,
        )
        return parcel, note

    def _check(self, payload: bytes, made: Unpacked, route: Route, client: Client) -> str:
        """Refuse what ingest would; a message that holds several records as a whole. See `_parcel`."""
        for broken in made.reasons:
            if broken is not None:
                self._refuse(_invalid(broken.decode()))
        refused = self._judge.refusals(route.device_type, made.device_ids, made.payloads)
        for reason in refused.values():
            self._refuse(_refusal(payload, reason) if route.unpack is None else _invalid(reason))
        for device_id in (*made.device_ids, *(event.device_id for event in made.events)):
            if not client.may(device_id):
                said = f"this key may not send for {device_id.decode()!r}"
                self._refuse(HttpProblem(HTTPStatus.FORBIDDEN, "forbidden", said))
        return self._check_shape(payload, route)

    def _check_shape(self, payload: bytes, route: Route) -> str:
        if self._fixed.get(route.profile) is not route:
            return ""
        try:
            message = self._shapes[route.profile](payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(_invalid(str(error)))
        if isinstance(message, _SensorData) and message.type not in self._sensor_types:
            known = ", ".join(self._sensor_types)
            self._refuse(_invalid(f"type is {message.type[:100]!r}; it must be one of {known}"))
        if isinstance(message, _Row) and message.sensor_type not in self._row_types:
            name = message.sensor_type[:100]
            return (
                "the value is kept as an unknown field, and GET /api/data does not show it: "
                f"device type {API_DATA[0]} has no field {name!r}{near(name, self._row_types)}"
            )
        return ""

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


def _answer(
    verdicts: Sequence[Verdict | None], message_ids: Sequence[bytes], note: str, headers: Mapping[str, str]
) -> web.Response:
    """Of all records of the message the worst; what is no reading nobody judges."""
    more: dict[str, str | int] = {} if len(message_ids) == 1 else {"records": len(message_ids)}
    for message_id, verdict in zip(message_ids, verdicts, strict=True):
        if verdict is not None and verdict.kind != "stored":
            raise _problem(verdict, message_id.decode(), headers)
    if message_ids:
        more["message_id"] = message_ids[0].decode()
    if None not in verdicts:
        return _json(HTTPStatus.CREATED, {"status": "stored"} | more | ({"detail": note} if note else {}), headers)
    said = "; ".join(filter(None, [_NOT_JUDGED, note]))
    return _json(HTTPStatus.ACCEPTED, {"status": "accepted"} | more | {"detail": said}, headers)


def _problem(verdict: Verdict, message_id: str, headers: Mapping[str, str]) -> HttpProblem:
    if verdict.kind == "refused":
        return HttpProblem(HTTPStatus.BAD_REQUEST, "refused", verdict.reason, headers=headers, message_id=message_id)
    conflict = verdict.conflict
    sides = {} if conflict is None else {"time": conflict.time, "sent": conflict.measures, "stored": conflict.accepted}
    return HttpProblem(HTTPStatus.CONFLICT, "conflict", verdict.reason, headers=headers, message_id=message_id, **sides)


def _json(status: HTTPStatus, document: Mapping[str, str | int], headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), headers=headers, content_type="application/json")
