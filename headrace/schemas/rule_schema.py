"""JSON Schema (2020-12) of an alert rule, as the topic `rules` has it.

`python -m headrace.schemas.rule_schema` writes it to docs/reference/alert-rule.schema.json.
"""

from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from headrace.schemas.condition import OutOf
from headrace.schemas.rule import Actions, AlertRule, Flapping
from headrace.schemas.rule_mistakes import CONDITIONS
from headrace.schemas.schedule import Schedule, Stretch
from headrace.schemas.type_schema import DIALECT, documented

PUBLISHED = Path(__file__).parent.parent.parent / "docs" / "reference" / "alert-rule.schema.json"
_PARTS: tuple[type[BaseModel], ...] = (Actions, Flapping, OutOf, Schedule, Stretch, *CONDITIONS.values())


def rule_schema() -> dict[str, Any]:
    """The schema of a rule in JSON: the camelCase names of the public schema."""
    schema = AlertRule.model_json_schema(by_alias=True)
    models: tuple[type[BaseModel], ...] = (AlertRule, *_PARTS)
    for model in models:
        described = schema if model is AlertRule else schema["$defs"][model.__name__]
        summary, meanings = documented(model)
        for base in model.__bases__:
            meanings = documented(base)[1] | meanings
        described["description"] = summary
        for name, field in model.model_fields.items():
            if name in meanings:
                described["properties"][field.alias or name]["description"] = meanings[name]
    return {"$schema": DIALECT, **schema, "title": "headrace alert rule"}


def written_schema() -> bytes:
    """`rule_schema` as it is published."""
    return orjson.dumps(rule_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    PUBLISHED.write_bytes(written_schema())
