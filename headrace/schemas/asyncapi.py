"""One AsyncAPI 3.0 document about all public topics, made from their models.

`python -m headrace.schemas.asyncapi` writes it, the schema of each topic, and a page about them, to docs/reference.
"""

from typing import Any

from headrace import __version__
from headrace.schemas.headers import Header
from headrace.schemas.public_topics import PUBLIC_TOPICS, PublicTopic
from headrace.schemas.topic_page import PAGE, page
from headrace.schemas.topic_schemas import FOLDER, REFERENCE, examples, model_schema, published, written
from headrace.schemas.value_schema import Schema

PUBLISHED = REFERENCE / "asyncapi.json"
BINDING = "0.5.0"

_DESCRIPTION = """\
The topics of headrace that others may read or write. Field names, types and meanings here are kept: fields may be \
added, so ignore those that you do not know; nothing is removed or changed in meaning. Topics without a version in \
their name are the first version.

Records of a key are in one partition, in order. A reader that commits its positions after its work gets each record \
at least once. On Kafka read with isolation level read_committed (librdkafka has it as default, aiokafka and the Java \
client do not)."""


def asyncapi() -> dict[str, Any]:
    """The document. Its schemas keep to what AsyncAPI shares with JSON Schema draft 07."""
    schemas: dict[str, Schema] = {}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "headrace",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{broker}",
                "protocol": "kafka",
                "description": "The Kafka that `[log] url` names.",
                "variables": {"broker": {"default": "localhost:9092", "description": "host:port of a broker"}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in PUBLIC_TOPICS},
        "operations": dict(operation for topic in PUBLIC_TOPICS for operation in _operations(topic)),
        "components": {
            "messages": {
                name: message for topic in PUBLIC_TOPICS for name, message in _messages(topic, schemas).items()
            },
            "schemas": schemas,
        },
    }


def _channel(topic: PublicTopic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "title": topic.name,
        "summary": topic.carries,
        "description": f"Key: {topic.key}.\n\n{topic.promise}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _names(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {"cleanup.policy": ["compact" if topic.compacted else "delete"]},
                "bindingVersion": BINDING,
            }
        },
    }


def _operations(topic: PublicTopic) -> list[tuple[str, dict[str, Any]]]:
    """What headrace itself does with the topic."""
    actions = {"read": ["send"], "write": ["receive"], "both": ["send", "receive"]}[topic.access]
    return [
        (
            f"{action}-{topic.name}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic.name}"},
                "summary": f"headrace {'writes' if action == 'send' else 'reads'} {topic.name}",
                "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _names(topic)],
            },
        )
        for action in actions
    ]


def _names(topic: PublicTopic) -> list[str]:
    return [topic.title, f"{topic.title}Deleted"] if topic.compacted else [topic.title]


def _messages(topic: PublicTopic, schemas: dict[str, Schema]) -> dict[str, Any]:
    """The messages of a topic; adds to `schemas` what they refer to."""
    shared = {
        "headers": _headers(topic),
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": BINDING}},
    }
    shared = {name: each for name, each in shared.items() if each is not None}
    message = {
        "name": topic.title,
        "title": topic.title,
        "summary": topic.carries,
        "contentType": topic.media,
        **shared,
        "payload": _payload(topic, schemas),
        "examples": [
            {"name": each["key"], **({"headers": each["headers"]} if each["headers"] else {}), "payload": each["value"]}
            for each in examples(topic)
        ],
    }
    if not topic.compacted:
        return {topic.title: message}
    name = f"{topic.title}Deleted"
    deleted = {
        "name": name,
        "title": name,
        "summary": "A record without a value: its key is no more.",
        **shared,
        "payload": {"type": "null"},
    }
    return {topic.title: message, name: deleted}


def _headers(topic: PublicTopic) -> Schema | None:
    return headers_schema(topic) if topic.headers else None


def headers_schema(topic: PublicTopic) -> Schema:
    """The schema of a record's headers, their values as text."""

    def schema(header: Header) -> Schema:
        pattern = {} if header.pattern is None else {"pattern": header.pattern}
        return {"type": "string", "description": header.description, **pattern}

    return {
        "type": "object",
        "properties": {name: schema(header) for name, header in topic.headers.items()},
        "required": [name for name, header in topic.headers.items() if header.always],
    }


def _payload(topic: PublicTopic, schemas: dict[str, Schema]) -> Schema:
    if topic.model is None:
        return {"description": f"Bytes that are not looked at. {topic.carries}"}
    schema = model_schema(topic)
    parts = schema.pop("$defs", {})
    root = schema.setdefault("title", topic.title)
    parts[root] = schema
    for prefix in ("", topic.title):  # a model may be open in one topic and closed in another
        references = {f"#/$defs/{name}": f"#/components/schemas/{prefix}{name}" for name in parts}
        placed = {f"{prefix}{name}": _shared(part, references) for name, part in parts.items()}
        if all(schemas.get(name, part) == part for name, part in placed.items()):
            break
    schemas.update(placed)
    return {"$ref": f"#/components/schemas/{prefix}{root}"}


def _shared(part: Any, references: dict[str, str]) -> Any:
    """A schema with its references as they are in the document; draft 07 ignores what stands beside a reference."""
    if isinstance(part, list):
        return [_shared(each, references) for each in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("$ref"), str):
        reference = {"$ref": references[part["$ref"]]}
        beside = {name: each for name, each in part.items() if name != "$ref"}
        return {"allOf": [reference], **beside} if beside else reference
    return {name: _shared(each, references) for name, each in part.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, content in {**published(), PUBLISHED: written(asyncapi()), PAGE: page().encode()}.items():
        path.write_bytes(content)
