"""Records of public topics against what is published of them."""

from collections.abc import Iterable
from functools import cache

import orjson
from jsonschema import Draft202012Validator

from headrace.engine.records import Record
from headrace.schemas.asyncapi import headers_schema
from headrace.schemas.public_topics import BY_NAME
from headrace.schemas.topic_schemas import model_schema
from headrace.schemas.value_schema import closed


@cache
def _validators(topic: str) -> tuple[Draft202012Validator, Draft202012Validator | None]:
    """Of headers and values; closed: what is not described is wrong."""
    public = BY_NAME[topic]
    value = None if public.model is None else Draft202012Validator(closed(model_schema(public)))
    return Draft202012Validator(closed(headers_schema(public))), value


def mistakes(topic: str, records: Iterable[Record]) -> list[str]:
    """What is wrong with key, headers or value of records of a topic, each with the record."""
    headers, value = _validators(topic)
    found: list[str] = []
    for record in records:
        said = [] if record.key else ["no key"]
        texts = {name: each.decode() if name != "mqtt-properties" else "" for name, each in record.headers.items()}
        said += [error.message for error in headers.iter_errors(texts)]
        if record.value is None:
            said += [] if BY_NAME[topic].compacted else ["no value"]
        elif value is not None:
            document = orjson.loads(record.value)
            said += [f"{error.json_path}: {error.message}" for error in value.iter_errors(document)]
        found += [f"{topic} {record.key!r}: {each}" for each in said]
    return found
