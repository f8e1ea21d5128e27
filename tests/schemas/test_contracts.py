"""The published schemas of public topics, and the AsyncAPI document about them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import TypeAdapter

from headrace.schemas import topics
from headrace.schemas.asyncapi import PUBLISHED, asyncapi, headers_schema
from headrace.schemas.public_topics import BY_NAME, PUBLIC_TOPICS, PublicTopic
from headrace.schemas.schema_compare import breaks
from headrace.schemas.topic_page import PAGE, page
from headrace.schemas.topic_schemas import FOLDER, examples, model_schema, published, value_schema, written
from headrace.schemas.value_schema import Schema, closed

#: The official schema of AsyncAPI documents.
OFFICIAL = Path(__file__).parent / "asyncapi" / "asyncapi-3.0.0.json"
#: The schema of each topic as it was released. Whoever means to break readers puts the new one here, and says so in
#: the changelog.
RELEASED = Path(__file__).parent / "released_topics"
#: Topics that nobody else is to rely on: between workers, or without anything in them yet.
INTERNAL = {
    topics.ALERT_CAUSES,
    topics.DEAD_CONTACTS,
    topics.NOTIFICATION_REQUESTS,
    topics.NOTIFICATION_DEAD_LETTERS,
    topics.NOTIFICATIONS_PENDING,
}
TYPED = [topic for topic in PUBLIC_TOPICS if topic.model is not None]


def named(topic: PublicTopic) -> str:
    return topic.name


def test_published_files_are_up_to_date() -> None:
    """`python -m headrace.schemas.asyncapi` writes them anew; there are no others."""
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == published()
    assert PUBLISHED.read_bytes() == written(asyncapi())
    assert PAGE.read_text() == page()


def test_every_topic_is_public_or_said_to_be_internal() -> None:
    """A new topic cannot be forgotten."""
    names = {
        value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str) and "." in value
    }

    assert names | {topics.RULES} == BY_NAME.keys() | INTERNAL


def test_the_document_is_right_by_the_official_schema() -> None:
    """And what is wrong would be found."""
    official = Draft7Validator(orjson.loads(OFFICIAL.read_bytes()))
    wrong = asyncapi()
    wrong["operations"]["send-alerts.v1"]["action"] = "publish"

    official.validate(orjson.loads(PUBLISHED.read_bytes()))
    assert not official.is_valid(wrong)


def test_every_operation_and_message_of_the_document_is_there() -> None:
    """Every reference in it leads somewhere."""
    document = orjson.loads(PUBLISHED.read_bytes())

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    found = set(references(document))
    assert found
    for reference in found:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


@pytest.mark.parametrize("topic", TYPED, ids=named)
def test_every_field_is_described(topic: PublicTopic) -> None:
    """In the docstring of its model; and names of Python's are nowhere in it."""
    schema = value_schema(topic)
    assert schema is not None
    parts = [schema, *schema.get("$defs", {}).values()]
    fields = {name: field for part in parts for name, field in part.get("properties", {}).items()}

    Draft202012Validator.check_schema(schema)
    assert [name for name, field in fields.items() if not field.get("description")] == []
    assert [name for name, field in fields.items() if "None" in field["description"]] == []
    assert all(part.get("title") and part.get("description") for part in parts)


@pytest.mark.parametrize("topic", PUBLIC_TOPICS, ids=named)
def test_examples_are_records_of_their_topic(topic: PublicTopic) -> None:
    """Key, headers and value fit, with no field that is not described; and the model reads them."""
    found = examples(topic)

    assert found
    for example in found:
        assert example["key"]
        Draft202012Validator(closed(headers_schema(topic))).validate(example["headers"])
        if topic.model is None:
            assert isinstance(example["value"], str)
            continue
        Draft202012Validator(closed(model_schema(topic))).validate(example["value"])
        value = orjson.dumps(example["value"])
        if isinstance(topic.model, TypeAdapter):
            topic.model.validate_json(value)
        elif issubclass(topic.model, msgspec.Struct):
            msgspec.json.decode(value, type=topic.model)
        else:
            topic.model.model_validate_json(value)


@pytest.mark.parametrize("topic", TYPED, ids=named)
def test_schemas_of_the_document_say_the_same(topic: PublicTopic) -> None:
    """A tool that knows AsyncAPI takes the examples, and refuses one without a field that must be there."""
    document = orjson.loads(PUBLISHED.read_bytes())
    message = document["components"]["messages"][topic.title]
    validator = Draft7Validator({"$schema": Draft7Validator.META_SCHEMA["$id"], **document, **message["payload"]})

    for example in message["examples"]:
        validator.validate(example["payload"])
    first = message["examples"][0]["payload"]
    schema: Schema = model_schema(topic)
    needed = schema.get("required") or ["commandId"]
    assert not validator.is_valid({name: value for name, value in first.items() if name != needed[0]})


@pytest.mark.parametrize("topic", TYPED, ids=named)
def test_who_relied_on_a_released_schema_still_can(topic: PublicTopic) -> None:
    """Nothing that readers or writers go by is gone or different."""
    released = orjson.loads((RELEASED / f"{topic.name}.schema.json").read_bytes())
    schema = value_schema(topic)

    assert schema is not None
    assert breaks(released, schema, topic.access) == []


NUMBER, TEXT = {"type": "number"}, {"type": "string"}
THING: Schema = {
    "type": "object",
    "properties": {"id": TEXT, "n": {"type": "integer", "minimum": 0}, "kind": {"enum": ["a", "b"]}},
    "required": ["id"],
    "additionalProperties": False,
}


def thing(**fields: Schema) -> Schema:
    return {**THING, "properties": {**THING["properties"], **fields}}


@pytest.mark.parametrize(
    ("new", "reading", "writing"),
    [
        (THING, [], []),
        (thing(more=TEXT), ["more: was not allowed and is"], []),
        (
            {**thing(more=TEXT), "required": ["id", "more"]},
            ["more: was not allowed and is"],
            ["more: was not required and is"],
        ),
        ({**THING, "required": []}, ["id: was always there and is not"], []),
        ({**THING, "properties": {"id": TEXT, "kind": {"enum": ["a", "b"]}}}, ["n: is gone"], ["n: is gone"]),
        (thing(n=NUMBER), ["n: type was integer and is integer or number"], []),
        (thing(n={"type": "integer", "minimum": 1}), [], ["n: minimum was 0 and is 1"]),
        (thing(n={"type": "integer"}), ["n: minimum was 0 and is None"], []),
        (thing(id={"anyOf": [TEXT, {"type": "null"}]}), ["id: type was string and is null"], []),
        (thing(kind={"enum": ["a", "b", "c"]}), ["kind: values were 'a' or 'b' and are 'a' or 'b' or 'c'"], []),
        (thing(kind={"const": "a"}), [], ["kind: values were 'a' or 'b' and are 'a'"]),
        (thing(id={**TEXT, "maxLength": 5}), [], ["id: maxLength was None and is 5"]),
        (thing(id={"$ref": "#/$defs/id"}) | {"$defs": {"id": NUMBER}}, ["id: type was string and is integer or number"],
         ["id: type was string and is integer or number"]),
    ],
)  # fmt: skip
def test_changes_that_break_are_found(new: Schema, reading: list[str], writing: list[str]) -> None:
    """Each for who reads, or for who writes."""
    assert breaks(THING, new, "read") == reading
    assert breaks(THING, new, "write") == writing
