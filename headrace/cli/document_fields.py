"""Fields of a registry's documents, as `set` changes and `show` lists them."""

from collections.abc import Mapping
from typing import Any

import orjson


def put_field(document: dict[str, Any], path: tuple[str, ...], change: dict[str, Any]) -> None:
    """Change the field at `path` to what it is in `change`, or take it away if it is not there."""
    for part in path[:-1]:
        document = document.setdefault(part, {})
        change = change.get(part, {})
    if path and path[-1] in change:
        document[path[-1]] = change[path[-1]]
    elif path:
        document.pop(path[-1], None)


def flat_fields(document: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Every field with its whole name and its value as text.

    >>> flat_fields({"name": "Roof", "location": {"lat": 48.1}, "tags": ["a", "b"]})
    [('name', 'Roof'), ('location.lat', '48.1'), ('tags', 'a, b')]
    """
    cells: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            cells += flat_fields(value, f"{before}{name}.")
        else:
            each = value if isinstance(value, list) else [value]
            text = ", ".join(orjson.dumps(one).decode() if isinstance(one, dict) else str(one) for one in each)
            cells.append((before + name, text))
    return cells
