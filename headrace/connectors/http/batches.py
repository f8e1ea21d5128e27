"""Requests that bring many messages, each with a status of its own."""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus

import orjson
from aiohttp import web

from headrace.connectors.http.access import Client
from headrace.connectors.http.appender import Parcel
from headrace.connectors.http.body import read_body
from headrace.connectors.http.delivery import Delivery
from headrace.connectors.http.idempotency import IdempotencyKeys, Kept, digest_of, key_of
from headrace.connectors.http.items import NDJSON, split
from headrace.connectors.http.judge import Judge
from headrace.connectors.http.media import JSON, media_type
from headrace.connectors.http.prefer import Wish, wish
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.room import Room, Share
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.verdicts import Verdict
from headrace.connectors.payload_fields import PayloadFields
from headrace.engine.clock import Clock
from headrace.engine.metrics import Metrics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.schemas.topics import NO_DEVICE

PROFILE = "http-batch"
STATUSES = ("accepted", "stored", "conflict", "refused")
#: Bytes of messages that are judged in one go: nothing else runs meanwhile, and what JSON says in 3 bytes takes 80.
_AT_ONCE = 256 << 10
#: Longest reason told, characters.
_MAX_REASON = 200
_ACCEPTED = b'{"status":"accepted"}'


class Batches:
    """Takes batches. A message that is wrong touches no other.

    Args:
        settings: limits.
        room: what requests may hold together.
        judge: refuses before the append what ingest would refuse.
        device_types: by name; the first text among a type's identity fields is the device id.
        delivery: into the log.
        keys: answers that were given.
        clock: for letting others run.
        metrics: told what is refused.
    """

    def __init__(
        self,
        settings: HttpSettings,
        room: Room,
        judge: Judge,
        device_types: Mapping[str, DeviceType],
        delivery: Delivery,
        keys: IdempotencyKeys,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._room = room
        self._judge = judge
        self._fields = {name: PayloadFields(each.identity, None) for name, each in device_types.items()}
        self._delivery = delivery
        self._keys = keys
        self._clock = clock
        self._metrics = metrics

    async def post(self, request: web.BaseRequest, client: Client) -> web.Response:
        """`POST /batch`."""
        kind, device_type = media_type(request, (*JSON, *NDJSON)), self._device_type(request)
        key = key_of(request, client.name)
        with self._room.enter() as share:
            if key is None:
                wanted = wish(request, 0.0, self._settings.max_wait)
                items = self._items(await read_body(request, self._settings, share), kind)
                return await self._take(request, client, share, device_type, items, wanted)
            body = await read_body(request, self._settings, share)
            async with self._keys.turn(key):
                digest = digest_of(kind.encode(), device_type.encode(), body)
                kept = self._keys.find(key, digest)
                if kept is not None:
                    return kept.response()
                # The answer is kept before ingest can say anything, so it does not wait for that.
                items = self._items(body, kind)
                del body
                return await self._take(request, client, share, device_type, items, Wish(0.0, ""), key, digest)

    def _items(self, body: bytes, kind: str) -> list[bytes]:
        return split(body, kind, self._settings.max_items)

    def _device_type(self, request: web.BaseRequest) -> str:
        name = request.query.get("device_type", self._settings.device_type)
        if name not in self._fields:
            said = f"device type {name[:100]!r} is unknown{near(name[:100], self._fields)}"
            raise HttpProblem(HTTPStatus.BAD_REQUEST, "bad-request", said)
        return name

    async def _take(
        self,
        request: web.BaseRequest,
        client: Client,
        share: Share,
        device_type: str,
        items: list[bytes],
        wanted: Wish,
        key: bytes | None = None,
        digest: bytes = b"",
    ) -> web.Response:
        device_ids = self._device_ids(device_type, items)
        reasons = await self._refusals(client, device_type, device_ids, items)
        chosen: Sequence[int] = (
            [row for row in range(len(items)) if row not in reasons] if reasons else range(len(items))
        )
        kept: Kept | None = None
        if key is not None:
            body = _body(len(items), reasons, chosen, [None] * len(chosen))
            kept = self._keys.answer(digest, _status([None] * len(chosen)), body)
        total = len(items)
        parcel = Parcel(
            device_ids if not reasons else [device_ids[row] for row in chosen],
            items.copy() if not reasons else [items[row] for row in chosen],
            self._delivery.message_ids(len(chosen)),
            device_type,
            PROFILE,
            request.rel_url.raw_path.encode(),
            changes=[self._keys.changes(key, kept)] if key is not None and kept is not None else [],
        )
        items.clear()  # the parcel has them, until they are in the log
        verdicts: Sequence[Verdict | None] = []
        if chosen or kept is not None:
            # With a key it waits for the log as long as it takes: until it knows, nobody may try the key again.
            verdicts = await self._delivery.deliver(parcel, share, wanted, patient=kept is not None)
        if key is not None and kept is not None:
            self._keys.put(key, kept)
            return _response(kept.status, body, {})
        return _response(_status(verdicts), _body(total, reasons, chosen, verdicts), wanted.headers)

    def _device_ids(self, device_type: str, items: Sequence[bytes]) -> list[bytes]:
        found, nobody = self._fields[device_type].device_ids(items), NO_DEVICE.encode()
        return found if all(found) else [each or nobody for each in found]

    async def _refusals(
        self, client: Client, device_type: str, device_ids: list[bytes], items: list[bytes]
    ) -> dict[int, str]:
        most = self._settings.max_message_bytes
        reasons = {row: f"it has more than {most} bytes" for row, item in enumerate(items) if len(item) > most}
        for start, end in _parts(items, most):
            judged: Sequence[bytes] = items[start:end]
            if reasons:
                judged = [b"" if start + place in reasons else item for place, item in enumerate(judged)]
            for place, reason in self._judge.refusals(device_type, device_ids[start:end], judged).items():
                reasons.setdefault(start + place, reason[:_MAX_REASON])
            if end < len(items):
                await self._clock.sleep(0)
        if reasons:
            self._metrics.count("headrace_http_refused_total", len(reasons), http_reason="invalid-message")
        if not client.is_for_all:
            others = {
                row: "this key may not send for that device"
                for row, device_id in enumerate(device_ids)
                if row not in reasons and not client.may(device_id)
            }
            self._metrics.count("headrace_http_refused_total", len(others), http_reason="forbidden")
            reasons |= others
        return reasons


def _parts(items: Sequence[bytes], most: int) -> Iterator[tuple[int, int]]:
    """Places of messages that are judged together: those of `_AT_ONCE` bytes, one at least."""
    if sum(map(len, items)) <= _AT_ONCE:
        yield 0, len(items)
        return
    start = size = 0
    for row, item in enumerate(items):
        taken = min(len(item), most)
        if size + taken > _AT_ONCE and row > start:
            yield start, row
            start, size = row, 0
        size += taken
    yield start, len(items)


def _status(verdicts: Sequence[Verdict | None]) -> int:
    return HTTPStatus.ACCEPTED if None in verdicts else HTTPStatus.OK


def _body(total: int, reasons: Mapping[int, str], chosen: Sequence[int], verdicts: Sequence[Verdict | None]) -> bytes:
    """The answer: how many have which status, then that of each in order."""
    items = [_ACCEPTED] * total
    counts = dict.fromkeys(STATUSES, 0)
    for row, reason in reasons.items():
        items[row] = orjson.dumps({"status": "refused", "reason": _text(reason)})
    counts["refused"] = len(reasons)
    if all(verdict is None for verdict in verdicts):
        counts["accepted"] = len(chosen)
    else:
        for row, verdict in zip(chosen, verdicts, strict=True):
            counts["accepted" if verdict is None else verdict.kind] += 1
            if verdict is not None:
                said = {"status": verdict.kind} | ({"reason": _text(verdict.reason)} if verdict.reason else {})
                items[row] = orjson.dumps(said)
    return orjson.dumps(counts)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _text(reason: str) -> str:
    """Without half surrogate pairs, which a payload may have and JSON may not."""
    return reason.encode(errors="replace").decode()


def _response(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")
