"""The published JSON Schema of each public topic's value, and examples of its records.

`python -m headrace.schemas.asyncapi` writes them to docs/reference/topics.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from headrace.schemas.public_topics import PUBLIC_TOPICS, PublicTopic
from headrace.schemas.type_schema import DIALECT
from headrace.schemas.value_schema import Schema, opened, schema_of

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
FOLDER = REFERENCE / "topics"


def value_schema(topic: PublicTopic) -> Schema | None:
    """The schema of a topic's values; None where only sender and receiver know them.

    For topics that are read, objects may have fields that are not in it: some will be added. What others write must
    have no more than what is in it.
    """
    if topic.model is None:
        return None
    made = model_schema(topic)
    said = made.pop("description", "")
    described = f"{said or topic.carries} Value of a record of {topic.name}."
    return {"$schema": DIALECT, "title": topic.title, "description": described} | {
        name: each for name, each in made.items() if name != "title"
    }


def model_schema(topic: PublicTopic) -> Schema:
    """The schema of the model of a topic's values, open for who reads."""
    made = schema_of(topic.model)
    return opened(made) if topic.access == "read" else made


def examples(topic: PublicTopic) -> list[dict[str, Any]]:
    """Records as they may be there, each with `key`, `headers` and `value`; a value that is no JSON as text."""
    file = resources.files("headrace.schemas") / "examples" / f"{topic.name}.json"
    found: list[dict[str, Any]] = orjson.loads(file.read_bytes())
    return found


def written(document: Any) -> bytes:
    """A document as it is published."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def published() -> dict[Path, bytes]:
    """Every file with a schema, and what is in it."""
    made = {FOLDER / f"{topic.name}.schema.json": value_schema(topic) for topic in PUBLIC_TOPICS}
    return {path: written(schema) for path, schema in made.items() if schema is not None}
