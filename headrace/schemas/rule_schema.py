"""JSON Schema (2020-12) of an alert rule, as the topic `rules` has it.

`python -m headrace.schemas.rule_schema` writes it to docs/reference/alert-rule.schema.json.
"""

from pathlib import Path
from typing import Any

import orjson

from headrace.schemas.rule import AlertRule
from headrace.schemas.type_schema import DIALECT
from headrace.schemas.value_schema import schema_of

PUBLISHED = Path(__file__).parent.parent.parent / "docs" / "reference" / "alert-rule.schema.json"


def rule_schema() -> dict[str, Any]:
    """The schema of a rule in JSON: the camelCase names of the public schema."""
    return {"$schema": DIALECT, **schema_of(AlertRule), "title": "headrace alert rule"}


def written_schema() -> bytes:
    """`rule_schema` as it is published."""
    return orjson.dumps(rule_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    PUBLISHED.write_bytes(written_schema())
