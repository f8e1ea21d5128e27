"""Files of users, as documents of `User`."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from headrace.connectors.row_file import Kind, Row, file_rows
from headrace.schemas.user import Preferences, User

_PREFERENCES = "preferences"
_OF_USER = {field.alias or name for name, field in User.model_fields.items()}
_OF_PREFERENCES = {field.alias or name for name, field in Preferences.model_fields.items()}
#: Other names that a field comes under, in lower case and without `_`, `-` and spaces.
_NAMES: dict[str, tuple[str, ...]] = {
    **{name.lower(): (_PREFERENCES, name) for name in _OF_PREFERENCES},
    **{name.lower(): (name,) for name in _OF_USER},
    "id": ("userId",),
    "mail": ("email",),
    "mobile": ("phone",),
    "organisation": ("organizationId",),
    "organization": ("organizationId",),
    "organisationid": ("organizationId",),
    "tokens": ("deviceTokens",),
    "devices": (_PREFERENCES, "subscribedDevices"),
    "shifts": ("onCall",),
}
#: What the dashboard keeps is left as it is.
_OPAQUE = "dashboardLayout"
#: Fields whose texts are lists.
_LISTS = frozenset({"subscribedDevices", "deviceTokens", "override", "severities"})
_TIMES = frozenset({"createdAt", "updatedAt"})


def user_rows(path: Path) -> Iterator[Row]:
    """The users of a file; see `headrace.connectors.row_file`.

    Raises:
        ConfigError: the file cannot be read, or its header names something that no user has.
    """
    return file_rows(path, USER_KIND)


@lru_cache(maxsize=4096)
def user_path(name: str) -> tuple[str, ...]:
    """Where a field of this name is in a document. An unknown one keeps its name.

    >>> user_path("Organisation"), user_path("quiet_hours.start"), user_path("preferences.language")
    (('organizationId',), ('preferences', 'quietHours', 'start'), ('language',))
    """
    parts = name.strip().split(".")
    if _plain(parts[0]) == _PREFERENCES and len(parts) > 1:
        parts = parts[1:]
        first = _NAMES.get(_plain(parts[0]), (_PREFERENCES, parts[0]))
    else:
        first = _NAMES.get(_plain(parts[0]), (parts[0],))
    return (*first, *(parts[1:] if first[-1] == _OPAQUE else map(to_camel, parts[1:])))


def user_document(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` under the names of `User`: other spellings understood, names with dots nested, empty ones left out.

    >>> user_document({"id": "ada", "quietHours.start": "22:00", "devices": "d-1; d-2", "createdAt": "1970-01-02"})
    {'userId': 'ada', 'preferences': {'quietHours': {'start': '22:00'}, 'subscribedDevices': ['d-1', 'd-2']}, \
'createdAt': 86400000}
    """
    document: dict[str, Any] = {}
    for name, value in fields.items():
        path = user_path(name)
        if path == (_PREFERENCES,) and isinstance(value, dict):
            for inner, each in user_document({f"{_PREFERENCES}.{key}": each for key, each in value.items()}).items():
                _merge(document, (inner,), each)
        elif value is not None and value != "":
            _merge(document, path, _read(path, value) if isinstance(value, str) else value)
    return document


def _merge(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inner = document.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        document = inner
    before = document.get(path[-1])
    document[path[-1]] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _read(path: tuple[str, ...], text: str) -> object:
    """A text that means more than itself."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if not _LISTS.isdisjoint(path) and path[-1] != _PREFERENCES:
        return [each.strip() for each in re.split("[;,|]", text) if each.strip()]
    if path == ("phone",):
        return _number(text)
    return _moment(text) if path[-1] in _TIMES else text


def _moment(text: str) -> object:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _number(text: str) -> str:
    """A phone number as people write it. A (0) is dialled only at home: which one is meant is theirs to say.

    >>> _number("+49 (170) 123-4567"), _number("+49 (0)170 1234567")
    ('+491701234567', '+49 (0)170 1234567')
    """
    return text if "(0" in text else re.sub(r"[\s\-./()\u2011]", "", text)


def _plain(name: str) -> str:
    return re.sub(r"[_\- ]", "", name).lower()


USER_KIND = Kind("user", _OF_USER, _NAMES, user_path, user_document, "id,name,email,phone")
