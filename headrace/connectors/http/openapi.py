"""The description of HTTP ingest, OpenAPI 3.1; tests ask a running bridge everything that it allows."""

from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any, get_args

from headrace.connectors.http.access import HEADER
from headrace.connectors.http.batches import STATUSES
from headrace.connectors.http.idempotency import LONGEST_KEY
from headrace.connectors.http.media import TELEMETRY
from headrace.connectors.http.problem import MEDIA_TYPE, PREFIX, Kind
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.stored_values import LIMIT, MAX_LIMIT

Document = dict[str, Any]
_TEXT: Document = {"type": "string"}
_COUNT: Document = {"type": "integer", "minimum": 0}
_SENSOR = {"sensor_id": "hall-1", "type": "temperature", "value": 21.5, "location": "hall"}
_ROW = {"device_id": "wall-3", "sensor_type": "temperature", "value": 21.5, "unit": "C"}
_READING = {"timestamp": 1750000000000, "temperature": 21.5, "humidity": 48}
#: What may become of any request, and of one with a body, beside what is special to an endpoint.
_ANY: tuple[HTTPStatus, ...] = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_BODY: tuple[HTTPStatus, ...] = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.EXPECTATION_FAILED,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_KEY: tuple[HTTPStatus, ...] = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def document(settings: HttpSettings, known: Collection[str]) -> Document:
    """The description.

    Args:
        settings: limits, and whether keys are asked for.
        known: which of the paths of certain device types there are, see `Singles.known`.
    """
    paths: Document = {"/batch": {"post": _batch(settings)}, "/devices/{device_id}/telemetry": {"post": _telemetry()}}
    if "sensor-data" in known:
        paths["/sensor/data"] = {"post": _single("postSensorData", "One value of an aggregator's sensor", "SensorData")}
    if "api-data" in known:
        paths["/api/data"] = {
            "post": _single("postApiData", "One row of a collector", "CollectorRow"),
            "get": _newest(),
        }
    paths["/health"] = {"get": _open("health", "Whether it works", {"type": "object", "required": ["status"]})}
    paths["/openapi.json"] = {"get": _open("describe", "This description", {"type": "object", "required": ["openapi"]})}
    described: Document = {
        "openapi": "3.1.0",
        "info": {"title": "headrace HTTP ingest", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(), "responses": _problems(), "parameters": _PARAMETERS},
    }
    if settings.api_keys:
        described["components"]["securitySchemes"] = {
            "header": {"type": "apiKey", "in": "header", "name": HEADER},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        described["security"] = [{"header": []}, {"bearer": []}]
    return described


_ABOUT = (
    "What is answered with 201, 202, or a status of its own in a batch, is in the log for good. Bodies may be gzip. "
    "Every error is application/problem+json (RFC 9457); its `type` ends with what is wrong, for programs."
)
_PARAMETERS: Document = {
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async`: do not wait for ingest; `wait=N`: up to N s (RFC 7240). Not under a key.",
        "schema": _TEXT,
        "example": "wait=5",
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Sent again with the same key, the same request gets the same answer and changes nothing.",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    },
}


def _schemas() -> Document:
    status = {"type": "string", "enum": list(STATUSES)}
    item = {"type": "object", "required": ["status"], "properties": {"status": status, "reason": _TEXT}}
    sensor_type = {"type": "string", "enum": ["temperature", "humidity", "pressure"]}
    device_id = {"type": "string", "minLength": 1, "maxLength": 256}
    time = {
        "type": ["string", "number", "null"],
        "description": "ISO 8601, or ms since 1970; when it came if left out.",
    }
    row = {"sensor_type": _TEXT, "value": {"type": "number"}, "unit": _TEXT}
    return {
        "SensorData": {
            "type": "object",
            "required": ["sensor_id", "type", "value", "location"],
            "properties": {
                "sensor_id": device_id,
                "type": sensor_type,
                "value": {"type": "number"},
                "location": {"type": "string", "minLength": 1},
                "timestamp": time,
            },
            "examples": [_SENSOR],
        },
        "CollectorRow": {
            "type": "object",
            "required": ["device_id", "sensor_type", "value"],
            "properties": {"device_id": device_id, **row, "unit": {"type": ["string", "null"]}, "timestamp": time},
            "examples": [_ROW],
        },
        "Reading": {
            "type": "object",
            "description": "As the device type says; docs/reference/device-types.md has those that ship.",
            "examples": [_READING],
        },
        "Taken": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": {"type": "string", "enum": ["stored", "accepted"]},
                "message_id": {
                    "type": "string",
                    "format": "uuid",
                    "description": "Of the first record; none where it is no reading.",
                },
                "records": {"type": "integer", "minimum": 0, "description": "Of a message that is not just one."},
                "detail": {"type": "string", "description": "Why it is not judged; a field that nobody knows."},
            },
        },
        "BatchAnswer": {
            "type": "object",
            "required": [*STATUSES, "items"],
            "properties": {
                **dict.fromkeys(STATUSES, _COUNT),
                "items": {"type": "array", "items": item, "description": "In the order of the batch."},
            },
        },
        "Newest": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "data": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["device_id", "sensor_type", "value", "unit", "timestamp"],
                        "properties": {
                            "device_id": _TEXT,
                            **row,
                            "timestamp": {"type": "string", "format": "date-time"},
                        },
                    },
                }
            },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string", "enum": [PREFIX + kind for kind in sorted(get_args(Kind))]},
                "title": _TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string", "description": "What happened and what to do."},
                "message_id": {"type": "string", "format": "uuid"},
                "time": {"type": "integer", "description": "Of a conflict: event time, ms since 1970 UTC."},
                "sent": {"type": "object", "additionalProperties": {"type": "number"}},
                "stored": {"type": "object", "additionalProperties": {"type": "number"}},
            },
        },
    }


_WHEN: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "It is not JSON (`not-json`), or not what the device type says (`invalid-message`).",
    HTTPStatus.UNAUTHORIZED: "No key that is known.",
    HTTPStatus.FORBIDDEN: "The key is for other devices.",
    HTTPStatus.NOT_FOUND: "No topic profile takes what this device sends.",
    HTTPStatus.REQUEST_TIMEOUT: "Head or body came too slowly.",
    HTTPStatus.CONFLICT: "Another message said otherwise for the same device and time. It is kept aside.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "More than is allowed: bytes, bytes unpacked, or messages.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Neither JSON, nor what else is taken here; or packed otherwise than by gzip.",
    HTTPStatus.EXPECTATION_FAILED: "An Expect other than 100-continue.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The Idempotency-Key came with another request before.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too much waits for the log, or others needed the room of a body that came slowly.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The head is too large.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The log, or the database, cannot be reached, or the server is being stopped.",
}
_HEADERS: Mapping[HTTPStatus, str] = {
    HTTPStatus.UNAUTHORIZED: "WWW-Authenticate",
    HTTPStatus.TOO_MANY_REQUESTS: "Retry-After",
    HTTPStatus.SERVICE_UNAVAILABLE: "Retry-After",
}


def _problems() -> Document:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: Document = {}
    for status, when in _WHEN.items():
        found[str(int(status))] = described = {"description": when, "content": content}
        if status in _HEADERS:
            described["headers"] = {_HEADERS[status]: {"required": True, "schema": _TEXT}}
    return found


def _responses(good: Mapping[int, tuple[str, str]], bad: Iterable[HTTPStatus]) -> Document:
    found: Document = {
        str(status): {
            "description": said,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        }
        for status, (said, schema) in good.items()
    }
    return found | {str(int(each)): {"$ref": f"#/components/responses/{int(each)}"} for each in sorted(bad)}


def _single(name: str, summary: str, schema: str, *more: HTTPStatus) -> Document:
    good = {
        201: ("It is stored, or was stored before.", "Taken"),
        202: ("It is in the log for good; ingest has not said yet what it makes of it.", "Taken"),
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [{"$ref": f"#/components/parameters/{each}"} for each in ("Prefer", "IdempotencyKey")],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        },
        "responses": _responses(
            good, [*_ANY, *_BODY, *_KEY, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, *more]
        ),
    }


def _telemetry() -> Document:
    described = _single("postTelemetry", "One message of a device", "Reading", HTTPStatus.NOT_FOUND)
    for media_type in TELEMETRY[1:]:
        described["requestBody"]["content"][media_type] = {"schema": {}}
    described["parameters"].append(
        {
            "name": "device_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^/+#]+$"},
            "example": "roof-7",
        }
    )
    return described


def _batch(settings: HttpSettings) -> Document:
    good = {
        200: ("All are judged.", "BatchAnswer"),
        202: ("What is not refused is in the log for good; some of it is not judged yet.", "BatchAnswer"),
    }
    one = {"device_id": "roof-7"} | _READING
    described = _single("postBatch", "Many messages, each with a status of its own", "Reading")
    described["parameters"] += [
        {
            "name": "device_type",
            "in": "query",
            "description": f"That all of them are read with; `{settings.device_type}` if left out.",
            "schema": _TEXT,
            "example": settings.device_type,
        },
    ]
    many = {"type": "array", "minItems": 1, "maxItems": settings.max_items, "examples": [[one]]}
    described["requestBody"]["content"] = {
        "application/json": {"schema": many | {"items": {"description": "A Reading; what is none is refused alone."}}},
        "application/x-ndjson": {"schema": {"type": "string"}},
    }
    described["responses"] = _responses(good, [*_ANY, *_BODY, HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY])
    return described


def _newest() -> Document:
    return {
        "operationId": "newestApiData",
        "summary": "The newest values of collector devices within 30 days, the newest first",
        "parameters": [
            {"name": "device_id", "in": "query", "schema": {"type": "string"}, "example": "wall-3"},
            {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
            },
        ],
        "responses": _responses({200: ("Rows of the table.", "Newest")}, [*_ANY, *_KEY]),
    }


def _open(name: str, summary: str, schema: Document) -> Document:
    found: Document = _responses({}, _ANY)
    found["200"] = {"description": summary, "content": {"application/json": {"schema": schema}}}
    return {"operationId": name, "summary": summary, "security": [], "responses": found}
